//! Markdown, and HTML by way of Markdown.

use std::collections::BTreeMap;
use std::rc::Rc;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{Unreadable, table};

/// The text of an HTML page without scripts and styles.
pub(super) fn html(html: &str) -> Result<String, Unreadable> {
    let converter = htmd::HtmlToMarkdown::builder()
        .skip_tags(vec!["script", "style", "noscript", "template", "svg", "iframe", "nav"])
        .build();
    let too_deep = || Unreadable::Malformed("it is nested too deeply".to_owned());
    if looks_deeper(html, DEPTH) {
        return Err(too_deep());
    }
    let tree = converter
        .html_to_tree(html)
        .map_err(|error| Unreadable::Malformed(error.to_string()))?;
    if is_deeper(&tree, DEPTH) {
        return Err(too_deep());
    }
    Ok(markdown(&converter.tree_to_markdown(&tree)))
}

/// Elements inside of elements. The conversion recurses, and a stack that overflows ends the whole process.
const DEPTH: usize = 1_000;

/// Whether tags look as if they were nested deeper than that. Building the tree takes time by the square of its depth.
fn looks_deeper(html: &str, levels: usize) -> bool {
    /// Elements without contents, and those that end where the next of their kind begins.
    const FLAT: [&str; 27] = [
        "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta", "option", "p",
        "param", "rp", "rt", "source", "tbody", "td", "tfoot", "th", "thead", "tr", "track", "wbr",
    ];
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    let mut depth: usize = 0;
    for tag in html.split('<').skip(1) {
        let (tag, closes) = tag.strip_prefix('/').map_or((tag, false), |tag| (tag, true));
        let name: String = tag
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .take(32)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        if name.is_empty() || FLAT.contains(&name.as_str()) {
            continue;
        }
        let count = open.entry(name).or_default();
        if closes && *count > 0 {
            *count -= 1;
            depth = depth.saturating_sub(1);
        } else if !closes {
            *count += 1;
            depth += 1;
        }
        if depth > levels {
            return true;
        }
    }
    false
}

/// Whether a tree has more than so many levels, found without recursion.
fn is_deeper(tree: &Rc<htmd::Node>, levels: usize) -> bool {
    let mut open = vec![(Rc::clone(tree), 0)];
    while let Some((node, level)) = open.pop() {
        if level > levels {
            return true;
        }
        open.extend(node.children.borrow().iter().map(|child| (Rc::clone(child), level + 1)));
    }
    false
}

/// The text of a Markdown document: emphasis, links and HTML gone, headings, items and rows kept as lines.
pub(super) fn markdown(source: &str) -> String {
    let mut text = Renderer::default();
    for event in Parser::new_ext(source, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        text.take(event);
    }
    text.out
}

#[derive(Default)]
struct Renderer {
    out: String,
    /// Rows of the table that is being read.
    table: Option<Vec<Vec<String>>>,
    list_depth: usize,
}

impl Renderer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) | Event::Code(text) => self.push(&text),
            Event::SoftBreak | Event::HardBreak => self.push(" "),
            Event::Start(Tag::Heading { level, .. }) => {
                self.blank_line();
                let depth = match level {
                    HeadingLevel::H1 => 1,
                    HeadingLevel::H2 => 2,
                    HeadingLevel::H3 => 3,
                    HeadingLevel::H4 => 4,
                    HeadingLevel::H5 => 5,
                    HeadingLevel::H6 => 6,
                };
                self.push(&"#".repeat(depth));
                self.push(" ");
            }
            Event::Start(Tag::List(_)) => self.list_depth += 1,
            Event::End(TagEnd::List(_)) => {
                self.list_depth = self.list_depth.saturating_sub(1);
                self.blank_line();
            }
            Event::Start(Tag::Item) => {
                self.new_line();
                self.push("- ");
            }
            Event::Start(Tag::Table(_)) => self.table = Some(Vec::new()),
            Event::Start(Tag::TableHead | Tag::TableRow) => {
                if let Some(rows) = &mut self.table {
                    rows.push(Vec::new());
                }
            }
            Event::Start(Tag::TableCell) => {
                if let Some(row) = self.table.as_mut().and_then(|rows| rows.last_mut()) {
                    row.push(String::new());
                }
            }
            Event::End(TagEnd::Table) => {
                if let Some(rows) = self.table.take() {
                    self.blank_line();
                    self.out.push_str(&table::render(&rows, true));
                    self.blank_line();
                }
            }
            Event::End(TagEnd::Item) => self.new_line(),
            Event::End(TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::CodeBlock | TagEnd::BlockQuote(_)) => {
                if self.list_depth == 0 {
                    self.blank_line();
                } else {
                    self.new_line();
                }
            }
            _ => {}
        }
    }

    /// Into the cell that is being read, or else into the text.
    fn push(&mut self, text: &str) {
        match self
            .table
            .as_mut()
            .and_then(|rows| rows.last_mut())
            .and_then(|row| row.last_mut())
        {
            Some(cell) => cell.push_str(text),
            None => self.out.push_str(text),
        }
    }

    fn new_line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    fn blank_line(&mut self) {
        self.new_line();
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }
}
