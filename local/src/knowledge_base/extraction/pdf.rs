//! PDF, on `pdf-extract`.
//!
//! The crate decodes fonts well and gives up (by panicking) on much that has nothing to do with text, so each page's
//! content is reduced to well-formed text operators first, and two of its misreadings are repaired in the document
//! before it sees it: ranges of glyph widths, without which Google's PDFs fall into syllables, and fonts that map only
//! some of their characters. Lines, paragraphs and headings are put together here from the glyphs' positions.
//!
//! A file whose end is missing is refused, whatever else could be read of it. Tables are read as lines of text, and
//! text in pictures not at all.

use std::collections::BTreeSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_extract::content::{Content, Operation};
use pdf_extract::{Dictionary, Document, MediaBox, Object, ObjectId, OutputDev, OutputError, Stream, Transform};

use super::{Budget, Page, Unreadable};

/// How far from the end of the file its end marker may stand (as other readers have it).
const TRAILER_BYTES: usize = 1_024;

/// How far before a stream its dictionary is looked for.
const DICTIONARY_BYTES: usize = 1_024;

/// Forms inside of forms, and ancestors of a page, beyond which a document is taken for a trap.
const DEPTH: usize = 32;

/// The pages of a PDF.
pub(super) fn extract(bytes: &[u8], budget: &Budget) -> Result<Vec<Page>, Unreadable> {
    let malformed = |reason: &str| Unreadable::Malformed(reason.to_owned());
    let tail = bytes
        .get(bytes.len().saturating_sub(TRAILER_BYTES)..)
        .unwrap_or_default();
    let contains = |marker: &[u8]| tail.windows(marker.len()).any(|window| window == marker);
    // A linearized file has an end marker near its beginning as well, and some parsers are content with that one.
    if !contains(b"%%EOF") || !contains(b"startxref") {
        return Err(malformed("the end of the PDF is missing"));
    }
    check_expansion(bytes, budget)?;
    let mut document = catch_unwind(|| Document::load_mem(bytes))
        .map_err(|_| malformed("the PDF's objects are damaged"))?
        .map_err(|error| Unreadable::Malformed(format!("the PDF's objects are damaged: {error}")))?;
    if document.is_encrypted() && document.decrypt("").is_err() {
        return Err(Unreadable::Unsupported(
            "The PDF is protected by a password.".to_owned(),
        ));
    }
    let pages = document.get_pages();
    if pages.is_empty() {
        return Err(malformed("the PDF has no pages"));
    }
    budget.check(0)?;
    repair_fonts(&mut document);
    reduce_forms(&mut document, budget)?;
    for id in pages.values() {
        budget.check(0)?;
        check_content(&document, *id, budget)?;
        reduce_page(&mut document, *id)?;
    }
    let mut read = Vec::new();
    let mut length = 0;
    for number in pages.keys() {
        budget.check(length)?;
        let mut glyphs = Glyphs::default();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pdf_extract::output_doc_page(&document, &mut glyphs, *number)
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Unreadable::Malformed(format!("page {number}: {error}"))),
            Err(_) => {
                return Err(Unreadable::Malformed(format!(
                    "the fonts of page {number} can't be decoded"
                )));
            }
        }
        length += glyphs.lines.iter().map(|line| line.text.len()).sum::<usize>();
        read.push((*number, glyphs));
    }
    let body_size = body_size(read.iter().flat_map(|(_, glyphs)| &glyphs.lines));
    Ok(read
        .into_iter()
        .map(|(number, glyphs)| Page {
            number: Some(number),
            text: paragraphs(&glyphs.lines, body_size, glyphs.width),
        })
        .collect())
}

/// Counts what the compressed streams of a file expand to, before a parser that knows no limit unpacks them.
fn check_expansion(bytes: &[u8], budget: &Budget) -> Result<(), Unreadable> {
    const START: &[u8] = b"stream";
    let limit = budget.limits.expanded_bytes;
    let mut expanded: u64 = 0;
    for at in positions(bytes, START) {
        budget.check(0)?;
        let data = bytes.get(at + START.len()..).unwrap_or_default();
        let data = data.strip_prefix(b"\r").unwrap_or(data);
        let data = data.strip_prefix(b"\n").unwrap_or(data);
        // Pictures are large, and never unpacked.
        let dictionary = bytes.get(at.saturating_sub(DICTIONARY_BYTES)..at).unwrap_or_default();
        let dictionary = positions(dictionary, b" obj")
            .last()
            .and_then(|start| dictionary.get(start..))
            .unwrap_or_default();
        let says = |name: &[u8]| positions(dictionary, name).next().is_some();
        if says(b"/Image") && !says(b"/ObjStm") && !says(b"/XRef") && !says(b"/Form") {
            continue;
        }
        // A zlib header: deflate, and a check over its two bytes.
        let [method, flags, body @ ..] = data else { continue };
        if method & 0x0F != 8 || (u16::from(*method) << 8 | u16::from(*flags)) % 31 != 0 {
            continue;
        }
        let inflated = flate2::read::DeflateDecoder::new(body).take(limit.saturating_sub(expanded).saturating_add(1));
        // Whether it is whole matters where it is read.
        expanded = expanded.saturating_add(count(inflated).0);
        if expanded > limit {
            return Err(Unreadable::TooLarge(format!("it expands to more than {limit} bytes")));
        }
    }
    Ok(())
}

/// Where a pattern stands.
fn positions<'a>(bytes: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(pattern.len())
        .enumerate()
        .filter(move |(_, window)| *window == pattern)
        .map(|(at, _)| at)
}

/// How many bytes come out of a reader, and whether it ended well.
fn count(mut reader: impl Read) -> (u64, bool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut total: u64 = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (total, true),
            Ok(read) => total = total.saturating_add(read as u64),
            Err(_) => return (total, false),
        }
    }
}

/// Refuses a page whose content breaks off: the parser takes what it gets and says nothing.
fn check_content(document: &Document, page: ObjectId, budget: &Budget) -> Result<(), Unreadable> {
    let limit = budget.limits.expanded_bytes;
    for id in document.get_page_contents(page) {
        let Ok(Object::Stream(stream)) = document.get_object(id) else {
            continue;
        };
        let is_deflated = stream
            .filters()
            .is_ok_and(|filters| filters.first() == Some(&b"FlateDecode".as_slice()));
        let body = stream.content.get(2..).unwrap_or_default();
        if !is_deflated || stream.content.is_empty() {
            continue;
        }
        let (expanded, is_whole) = count(flate2::read::DeflateDecoder::new(body).take(limit.saturating_add(1)));
        if expanded > limit {
            return Err(Unreadable::TooLarge(format!("it expands to more than {limit} bytes")));
        }
        if !is_whole {
            return Err(Unreadable::Malformed("a page's content is damaged".to_owned()));
        }
    }
    Ok(())
}

/// Where the crate misreads a font, the font is put differently.
fn repair_fonts(document: &mut Document) {
    let fonts: Vec<ObjectId> = document
        .objects
        .iter()
        .filter(|(_, object)| {
            object.as_dict().is_ok_and(|dictionary| {
                dictionary.has_type(b"Font") || dictionary.has(b"BaseFont") && dictionary.has(b"Subtype")
            })
        })
        .map(|(id, _)| *id)
        .collect();
    for id in fonts {
        let Ok(font) = document.get_dictionary(id) else {
            continue;
        };
        let subtype = font
            .get(b"Subtype")
            .and_then(Object::as_name)
            .unwrap_or_default()
            .to_vec();
        let mut changes: Vec<(&[u8], Object)> = Vec::new();
        if subtype.starts_with(b"CIDFont") {
            if let Ok(Object::Array(widths)) = font.get_deref(b"W", document) {
                changes.push((b"W", Object::Array(listed_widths(widths))));
            }
            if let Ok(Object::Real(width)) = font.get_deref(b"DW", document) {
                changes.push((b"DW", Object::Integer(rounded(*width))));
            }
        } else if subtype != b"Type0" && !font.has(b"Encoding") && maps_itself(document, font) {
            // Only looked at for characters that the font's own map leaves out, where there is a panic otherwise.
            changes.push((b"Encoding", Object::Name(b"WinAnsiEncoding".to_vec())));
        }
        if let Ok(font) = document.get_dictionary_mut(id) {
            for (key, value) in changes {
                font.set(key, value);
            }
        }
    }
}

/// Whether the crate finds a map of characters for a font, but none to fall back to.
fn maps_itself(document: &Document, font: &Dictionary) -> bool {
    let descriptor = font.get_deref(b"FontDescriptor", document).and_then(Object::as_dict);
    let embeds = |key: &[u8]| descriptor.as_ref().is_ok_and(|descriptor| descriptor.has(key));
    (font.has(b"ToUnicode") || embeds(b"FontFile3")) && !embeds(b"FontFile")
}

/// Widths as `first [width …]` only: the crate takes the first member of `first last width` for all three.
fn listed_widths(widths: &[Object]) -> Vec<Object> {
    let mut listed = Vec::new();
    let mut rest = widths;
    loop {
        rest = match rest {
            [first, Object::Array(list), rest @ ..] => {
                listed.push(first.clone());
                listed.push(Object::Array(list.clone()));
                rest
            }
            [first, last, width, rest @ ..] => {
                if let (Ok(from), Ok(to)) = (first.as_i64(), last.as_i64()) {
                    let count = to.saturating_sub(from).clamp(0, 65_535).saturating_add(1);
                    let count = usize::try_from(count).unwrap_or(0);
                    listed.push(first.clone());
                    listed.push(Object::Array(vec![width.clone(); count]));
                }
                rest
            }
            _ => return listed,
        };
    }
}

#[expect(clippy::cast_possible_truncation, reason = "glyph widths are thousandths of an em")]
fn rounded(width: f32) -> i64 {
    width.round() as i64
}

/// Reduces the content of every form to text operators, and takes out what would make forms contain themselves.
fn reduce_forms(document: &mut Document, budget: &Budget) -> Result<(), Unreadable> {
    let forms: Vec<ObjectId> = document
        .objects
        .iter()
        .filter(|(_, object)| object.as_stream().is_ok_and(is_form))
        .map(|(id, _)| *id)
        .collect();
    for id in forms {
        budget.check(0)?;
        let Ok(Object::Stream(form)) = document.get_object(id) else {
            continue;
        };
        let drawable = forms_of(document, form.dict.get_deref(b"Resources", document).ok());
        let nests = depth(document, id, 0) >= DEPTH;
        let content = form.get_plain_content().unwrap_or_default();
        let content = reduced(&content, &if nests { BTreeSet::new() } else { drawable })?;
        if let Ok(Object::Stream(form)) = document.get_object_mut(id) {
            form.dict.remove(b"Filter");
            form.dict.remove(b"DecodeParms");
            form.set_content(content);
        }
    }
    Ok(())
}

fn is_form(stream: &Stream) -> bool {
    stream
        .dict
        .get(b"Subtype")
        .and_then(Object::as_name)
        .is_ok_and(|subtype| subtype == b"Form")
}

/// How deep the forms below a form go, counted no further than the limit.
fn depth(document: &Document, id: ObjectId, above: usize) -> usize {
    if above >= DEPTH {
        return DEPTH;
    }
    let Ok(Object::Stream(form)) = document.get_object(id) else {
        return above;
    };
    let Ok(Object::Dictionary(resources)) = form.dict.get_deref(b"Resources", document) else {
        return above;
    };
    let Ok(Object::Dictionary(objects)) = resources.get_deref(b"XObject", document) else {
        return above;
    };
    let mut deepest = above;
    for (_, object) in objects.iter() {
        let Ok(inner) = object.as_reference() else { continue };
        if document
            .get_object(inner)
            .and_then(Object::as_stream)
            .is_ok_and(is_form)
        {
            deepest = deepest.max(depth(document, inner, above + 1));
            if deepest >= DEPTH {
                break;
            }
        }
    }
    deepest
}

/// The names under which resources offer forms (not pictures).
fn forms_of(document: &Document, resources: Option<&Object>) -> BTreeSet<Vec<u8>> {
    let Some(Object::Dictionary(resources)) = resources else {
        return BTreeSet::new();
    };
    let Ok(Object::Dictionary(objects)) = resources.get_deref(b"XObject", document) else {
        return BTreeSet::new();
    };
    objects
        .iter()
        .filter(|(_, object)| {
            document
                .dereference(object)
                .is_ok_and(|(_, object)| object.as_stream().is_ok_and(is_form))
        })
        .map(|(name, _)| name.clone())
        .collect()
}

/// Gives a page a content stream of text operators only, and a media box of its own.
fn reduce_page(document: &mut Document, id: ObjectId) -> Result<(), Unreadable> {
    let malformed = |reason: &str| Unreadable::Malformed(reason.to_owned());
    let page = document
        .get_dictionary(id)
        .map_err(|_| malformed("a page is missing"))?;
    let media_box = inherited(document, page, b"MediaBox")?
        .and_then(|object| object.as_array().ok())
        .map(|sides| {
            sides
                .iter()
                .filter_map(|side| side.as_float().ok())
                .collect::<Vec<f32>>()
        })
        .filter(|sides| sides.len() == 4)
        .unwrap_or_else(|| vec![0.0, 0.0, 612.0, 792.0]);
    let drawable = forms_of(document, inherited(document, page, b"Resources")?);
    let content = document
        .get_page_content(id)
        .map_err(|_| malformed("a page's content is missing"))?;
    let content = reduced(&content, &drawable)?;
    let stream = document.add_object(Stream::new(Dictionary::new(), content));
    let page = document
        .get_dictionary_mut(id)
        .map_err(|_| malformed("a page is missing"))?;
    page.set("Contents", Object::Reference(stream));
    page.set(
        "MediaBox",
        Object::Array(media_box.into_iter().map(Object::Real).collect()),
    );
    page.remove(b"ArtBox");
    Ok(())
}

/// A page's own entry or that of its nearest ancestor.
fn inherited<'a>(document: &'a Document, page: &'a Dictionary, key: &[u8]) -> Result<Option<&'a Object>, Unreadable> {
    let mut node = page;
    for _ in 0..DEPTH {
        if let Ok(object) = node.get_deref(key, document) {
            return Ok(Some(object));
        }
        match node.get_deref(b"Parent", document) {
            Ok(Object::Dictionary(parent)) => node = parent,
            _ => return Ok(None),
        }
    }
    Err(Unreadable::Malformed("the PDF's page tree has no root".to_owned()))
}

/// The operators that place text, with operands of the right kind and number; the two that the crate does not know are
/// put in terms of others.
fn reduced(content: &[u8], drawable: &BTreeSet<Vec<u8>>) -> Result<Vec<u8>, Unreadable> {
    let malformed = |_| Unreadable::Malformed("a page's content is damaged".to_owned());
    let decoded = Content::decode(content).map_err(malformed)?;
    let mut operations = Vec::new();
    for operation in decoded.operations {
        let Operation { operator, operands } = operation;
        let numbers = |count: usize| operands.len() == count && operands.iter().all(|o| o.as_float().is_ok());
        let keep = match (operator.as_str(), operands.as_slice()) {
            ("q" | "Q" | "BT" | "ET" | "T*", _) => true,
            ("cm" | "Tm", _) => numbers(6),
            ("Td" | "TD", _) => numbers(2),
            ("Tc" | "Tw" | "Tz" | "TL" | "Ts", _) => numbers(1),
            ("Tf", [Object::Name(_), size]) => size.as_float().is_ok(),
            ("Tj", [Object::String(..)]) | ("TJ", [Object::Array(_)]) => true,
            ("Do", [Object::Name(name)]) => drawable.contains(name),
            ("'", [text @ Object::String(..)]) => {
                operations.push(Operation::new("T*", Vec::new()));
                operations.push(Operation::new("Tj", vec![text.clone()]));
                false
            }
            ("\"", [word, character, text @ Object::String(..)])
                if word.as_float().is_ok() && character.as_float().is_ok() =>
            {
                operations.push(Operation::new("Tw", vec![word.clone()]));
                operations.push(Operation::new("Tc", vec![character.clone()]));
                operations.push(Operation::new("T*", Vec::new()));
                operations.push(Operation::new("Tj", vec![text.clone()]));
                false
            }
            _ => false,
        };
        if keep {
            operations.push(Operation { operator, operands });
        }
    }
    Content { operations }.encode().map_err(malformed)
}

/// One line of text where it stands on the page, in points from the lower left corner.
#[derive(Debug, Default)]
struct Line {
    text: String,
    left: f64,
    right: f64,
    baseline: f64,
    size: f64,
}

/// Collects glyphs to lines, in the order in which they are drawn.
#[derive(Debug, Default)]
struct Glyphs {
    lines: Vec<Line>,
    width: f64,
}

impl OutputDev for Glyphs {
    fn begin_page(
        &mut self,
        _number: u32,
        media_box: &MediaBox,
        _art_box: Option<(f64, f64, f64, f64)>,
    ) -> Result<(), OutputError> {
        self.width = (media_box.urx - media_box.llx).abs();
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn output_character(
        &mut self,
        matrix: &Transform,
        width: f64,
        _spacing: f64,
        font_size: f64,
        text: &str,
    ) -> Result<(), OutputError> {
        let size = (matrix.m11 * matrix.m22 - matrix.m12 * matrix.m21).abs().sqrt() * font_size.abs();
        let advance = width * font_size.abs() * matrix.m11.hypot(matrix.m12);
        let (x, y) = (matrix.m31, matrix.m32);
        let text = unligated(text);
        match self.lines.last_mut() {
            // Superscripts stay on their line; a step back to the left is a new one (or text drawn twice).
            Some(line) if (y - line.baseline).abs() < 0.5 * size.max(line.size) && x > line.right - 2.0 * size => {
                let is_apart = x > line.right + 0.15 * size;
                if is_apart && !line.text.ends_with(' ') && !text.starts_with(' ') {
                    line.text.push(' ');
                }
                line.text.push_str(&text);
                line.right = x + advance;
                line.size = line.size.max(size);
            }
            _ => {
                self.lines.push(Line {
                    text,
                    left: x,
                    right: x + advance,
                    baseline: y,
                    size,
                });
            }
        }
        Ok(())
    }

    fn begin_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Typesetters draw some pairs of letters as one glyph; nobody searches for them that way.
fn unligated(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .map(|character| match character {
            '\u{fb00}' => "ff".to_owned(),
            '\u{fb01}' => "fi".to_owned(),
            '\u{fb02}' => "fl".to_owned(),
            '\u{fb03}' => "ffi".to_owned(),
            '\u{fb04}' => "ffl".to_owned(),
            '\u{fb05}' | '\u{fb06}' => "st".to_owned(),
            '\u{a0}' => " ".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

/// The size in which most of the document is set.
fn body_size<'a>(lines: impl Iterator<Item = &'a Line>) -> f64 {
    let mut sizes: Vec<(f64, usize)> = lines.map(|line| (line.size, line.text.trim().len())).collect();
    sizes.sort_by(|one, other| one.0.total_cmp(&other.0));
    let half = sizes.iter().map(|(_, length)| length).sum::<usize>() / 2;
    let mut passed = 0;
    for (size, length) in sizes {
        passed += length;
        if passed > half {
            return size;
        }
    }
    0.0
}

/// Lines put together to paragraphs, which are parted by blank lines, with `#` before what is set larger.
fn paragraphs(lines: &[Line], body_size: f64, page_width: f64) -> String {
    let mut lines: Vec<&Line> = lines.iter().filter(|line| !line.text.trim().is_empty()).collect();
    // A page number would part a sentence that runs over the page's end.
    let is_page_number = |line: &&Line| line.text.trim().len() <= 4 && line.text.trim().parse::<u16>().is_ok();
    if lines.len() > 2 && lines.last().is_some_and(is_page_number) {
        lines.pop();
    }
    if lines.len() > 2 && lines.first().is_some_and(is_page_number) {
        lines.remove(0);
    }
    let mut text = String::new();
    let mut previous: Option<&Line> = None;
    for line in &lines {
        let content = line.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_heading = line.size > body_size * 1.12
            && content.len() <= 120
            && content.chars().filter(|character| character.is_alphabetic()).count() > 2;
        let follows = previous.is_some_and(|previous| {
            let step = previous.baseline - line.baseline;
            step > 0.0 && step < 1.7 * line.size && (previous.size - line.size).abs() < 0.05 * line.size
        });
        let goes_on = follows
            && !begins_record(&content)
            && (is_heading || previous.is_some_and(|previous| is_full(previous, &lines, page_width)));
        if goes_on {
            let is_hyphenated = text
                .strip_suffix('-')
                .is_some_and(|stem| stem.ends_with(char::is_lowercase) && content.starts_with(char::is_lowercase));
            if is_hyphenated {
                text.pop();
            } else {
                text.push(' ');
            }
        } else {
            if previous.is_some() {
                text.push_str(if follows && !is_heading { "\n" } else { "\n\n" });
            }
            if is_heading {
                text.push_str(if line.size > body_size * 1.6 { "# " } else { "## " });
            }
        }
        text.push_str(&content);
        previous = Some(line);
    }
    text.push('\n');
    text
}

/// Whether a line ends where its column ends, so that the next one is its continuation.
fn is_full(line: &Line, lines: &[&Line], page_width: f64) -> bool {
    let width = line.right - line.left;
    // One column, with margins as wide as the left one.
    if page_width > 0.0 && width > 0.85 * (page_width - 2.0 * line.left.clamp(0.0, page_width / 3.0)) {
        return true;
    }
    // Or a narrower column, known by the lines that end together.
    width > 20.0 * line.size
        && lines
            .iter()
            .filter(|other| (other.right - line.right).abs() < 0.5 * line.size)
            .count()
            >= 4
}

/// Whether a line is one of its own whatever stands above: an item, a numbered one, or a name with its value.
fn begins_record(line: &str) -> bool {
    let is_item = line.starts_with(['-', '\u{2022}', '\u{25cf}', '\u{2023}', '*', '\u{b7}', '\u{25e6}']);
    let is_numbered = line
        .split_once([' ', ')'])
        .is_some_and(|(first, _)| first.trim_end_matches('.').parse::<u32>().is_ok() && first.len() <= 4);
    let is_named = line.split_once(": ").is_some_and(|(name, _)| {
        name.split(' ').count() <= 5 && name.starts_with(|character: char| character.is_uppercase())
    });
    is_item || is_numbered || is_named
}
