//! Word documents (`.docx`, ECMA-376 Part 1): body with tables and text boxes, then footnotes, endnotes and comments.
//!
//! Deleted text of tracked changes is left out, inserted text is in. Headers and footers are not read.

use quick_xml::events::{BytesStart, Event};

use super::{Budget, Unreadable, open_archive, read_member, table};

/// The text of a Word document.
pub(super) fn extract(bytes: &[u8], budget: &Budget) -> Result<String, Unreadable> {
    let mut archive = open_archive(bytes, budget)?;
    let body = read_member(&mut archive, "word/document.xml", budget)?
        .ok_or_else(|| Unreadable::Malformed("it is no Word document".to_owned()))?;
    let mut text = read_part(&body, budget)?;
    for (member, name) in [
        ("footnotes", "Footnote"),
        ("endnotes", "Endnote"),
        ("comments", "Comment"),
    ] {
        let Some(part) = read_member(&mut archive, &format!("word/{member}.xml"), budget)? else {
            continue;
        };
        for (number, note) in read_notes(&part, budget)?.into_iter().enumerate() {
            text.push_str(&format!("\n{name} {}: {note}\n", number + 1));
        }
    }
    Ok(text)
}

/// Notes and comments, one string each, without the separators that Word keeps among them.
fn read_notes(xml: &str, budget: &Budget) -> Result<Vec<String>, Unreadable> {
    let mut notes = Vec::new();
    let mut reader = quick_xml::Reader::from_str(xml);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| Unreadable::Malformed(error.to_string()))?;
        match event {
            Event::Start(start)
                if matches!(start.local_name().as_ref(), b"footnote" | b"endnote" | b"comment")
                    && attribute(&start, b"type").is_none() =>
            {
                let from = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
                reader
                    .read_to_end(start.name())
                    .map_err(|error| Unreadable::Malformed(error.to_string()))?;
                let to = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
                let inner = xml.get(from..to).unwrap_or_default();
                // The end tag is part of the slice; a fragment's reader does not mind it being the only one.
                let inner = inner.rfind("</").and_then(|end| inner.get(..end)).unwrap_or_default();
                let note = read_part(inner, budget)?
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                if !note.is_empty() {
                    notes.push(note);
                }
            }
            Event::Eof => return Ok(notes),
            _ => {}
        }
    }
}

/// One paragraph that is being read. Text boxes put paragraphs inside of paragraphs.
#[derive(Default)]
struct Paragraph {
    text: String,
    heading: Option<usize>,
    is_item: bool,
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
    header_is_marked: bool,
}

#[derive(Default)]
struct Part {
    out: String,
    paragraphs: Vec<Paragraph>,
    tables: Vec<Table>,
    in_text: bool,
}

fn read_part(xml: &str, budget: &Budget) -> Result<String, Unreadable> {
    let malformed = |error: String| Unreadable::Malformed(error);
    let mut part = Part::default();
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut depth: usize = 0;
    loop {
        let event = reader.read_event().map_err(|error| malformed(error.to_string()))?;
        match &event {
            // Word writes text boxes twice: for itself (`Choice`) and for old versions (`Fallback`).
            Event::Start(start) if start.local_name().as_ref() == b"Fallback" => {
                reader
                    .read_to_end(start.name())
                    .map_err(|error| malformed(error.to_string()))?;
            }
            Event::Start(start) => {
                depth += 1;
                part.start(start);
            }
            Event::Empty(start) => {
                part.start(start);
                part.end(start.local_name().as_ref());
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                part.end(end.local_name().as_ref());
            }
            Event::Text(text) if part.in_text => {
                let text = text.decode().map_err(|error| malformed(error.to_string()))?;
                part.push(&text);
            }
            // Entities are events of their own.
            Event::GeneralRef(reference) if part.in_text => {
                let name = reference.decode().map_err(|error| malformed(error.to_string()))?;
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => Some(character.to_string()),
                    Ok(None) => quick_xml::escape::resolve_predefined_entity(&name).map(ToOwned::to_owned),
                    Err(error) => return Err(malformed(error.to_string())),
                };
                part.push(&resolved.ok_or_else(|| malformed(format!("the entity {name} is not declared")))?);
            }
            Event::Eof => break,
            _ => {}
        }
        if depth > 1_000 {
            return Err(malformed("it is nested too deeply".to_owned()));
        }
        budget.check(part.out.len())?;
    }
    Ok(part.out)
}

impl Part {
    fn start(&mut self, start: &BytesStart<'_>) {
        match start.local_name().as_ref() {
            b"p" => self.paragraphs.push(Paragraph::default()),
            b"pStyle" => {
                let style = attribute(start, b"val").unwrap_or_default().to_ascii_lowercase();
                if let Some(paragraph) = self.paragraphs.last_mut() {
                    paragraph.heading = match style.strip_prefix("heading") {
                        Some(level) => Some(level.trim().parse::<usize>().unwrap_or(1).clamp(1, 6)),
                        None if style == "title" => Some(1),
                        None => paragraph.heading,
                    };
                    paragraph.is_item |= style.starts_with("list");
                }
            }
            b"numPr" => {
                if let Some(paragraph) = self.paragraphs.last_mut() {
                    paragraph.is_item = true;
                }
            }
            b"t" => self.in_text = true,
            b"tab" => self.push(" "),
            b"br" | b"cr" => self.push("\n"),
            b"noBreakHyphen" => self.push("-"),
            b"tbl" => self.tables.push(Table::default()),
            b"tr" => {
                if let Some(table) = self.tables.last_mut() {
                    table.rows.push(Vec::new());
                }
            }
            b"tblHeader" => {
                if let Some(table) = self.tables.last_mut() {
                    table.header_is_marked |= table.rows.len() == 1;
                }
            }
            b"tc" => {
                if let Some(row) = self.tables.last_mut().and_then(|table| table.rows.last_mut()) {
                    row.push(String::new());
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &[u8]) {
        match name {
            b"t" => self.in_text = false,
            b"p" => {
                if let Some(paragraph) = self.paragraphs.pop() {
                    self.finish(&paragraph);
                }
            }
            b"tbl" => {
                if let Some(table) = self.tables.pop() {
                    let text = table::render(&table.rows, table.header_is_marked);
                    self.place(&text, true);
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, text: &str) {
        if let Some(paragraph) = self.paragraphs.last_mut() {
            paragraph.text.push_str(text);
        }
    }

    fn finish(&mut self, paragraph: &Paragraph) {
        let text = paragraph.text.trim();
        if text.is_empty() {
            return;
        }
        match (paragraph.heading, paragraph.is_item) {
            (Some(level), _) => self.place(&format!("{} {text}\n", "#".repeat(level)), true),
            (None, true) => self.place(&format!("- {text}\n"), false),
            (None, false) => self.place(&format!("{text}\n"), true),
        }
    }

    /// Into the cell of the table around, into the paragraph around (a text box), or into the text.
    fn place(&mut self, text: &str, apart: bool) {
        if let Some(paragraph) = self.paragraphs.last_mut() {
            if !paragraph.text.is_empty() {
                paragraph.text.push('\n');
            }
            paragraph.text.push_str(text.trim_end());
            return;
        }
        if let Some(cell) = self
            .tables
            .last_mut()
            .and_then(|table| table.rows.last_mut())
            .and_then(|row| row.last_mut())
        {
            if !cell.is_empty() {
                cell.push(' ');
            }
            cell.push_str(text.trim_end());
            return;
        }
        if apart && !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
        self.out.push_str(text);
        if apart {
            self.out.push('\n');
        }
    }
}

fn attribute(start: &BytesStart<'_>, name: &[u8]) -> Option<String> {
    start
        .attributes()
        .flatten()
        .find(|attribute| attribute.key.local_name().as_ref() == name)
        .map(|attribute| String::from_utf8_lossy(&attribute.value).into_owned())
}
