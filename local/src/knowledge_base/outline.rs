//! The lines of a text and the headings that they stand under.
//!
//! Passages are cut anywhere, and a line such as `Type: Asphalt shingles` says nothing without the heading above it. So
//! the headings in force at a passage's beginning are kept beside it ([`Outline::path_at`]), as a reader would remember
//! them.

/// The depth of a heading that is not marked as one: a short line that stands alone. It may be a statement as well.
pub const GUESSED: usize = 7;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A heading, of depth 1 to 6, or [`GUESSED`].
    Heading(usize),
    /// An item of a list, a row of a table, or a name with its value: a statement of its own.
    Record,
    /// Running text.
    Prose,
}

/// One line that is not blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Byte offset of the line in the text.
    pub offset: usize,
    /// The line without white space around, and without the marks of a heading or an item.
    pub text: &'a str,
    /// What it is.
    pub kind: Kind,
}

/// The lines of a text that are not blank.
#[must_use]
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let mut raw = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let lead = line.len() - line.trim_start().len();
        raw.push((offset + lead, trimmed));
        offset += line.len();
    }
    let is_blank = |index: Option<usize>| {
        index
            .and_then(|index| raw.get(index))
            .is_none_or(|(_, line): &(usize, &str)| line.is_empty())
    };
    raw.iter()
        .enumerate()
        .filter(|(_, (_, line))| !line.is_empty())
        .map(|(index, (offset, line))| {
            let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
            if (1..=6).contains(&hashes)
                && let Some(rest) = line.trim_start_matches('#').strip_prefix(' ')
            {
                return Line {
                    offset: *offset,
                    text: rest.trim(),
                    kind: Kind::Heading(hashes),
                };
            }
            if let Some(item) = item(line) {
                return Line {
                    offset: *offset,
                    text: item,
                    kind: Kind::Record,
                };
            }
            if is_record(line) {
                return Line {
                    offset: *offset,
                    text: line,
                    kind: Kind::Record,
                };
            }
            let stands_alone = is_blank(index.checked_sub(1)) && (is_blank(Some(index + 1)));
            if stands_alone && looks_like_heading(line) {
                return Line {
                    offset: *offset,
                    text: line,
                    kind: Kind::Heading(GUESSED),
                };
            }
            Line {
                offset: *offset,
                text: line,
                kind: Kind::Prose,
            }
        })
        .collect()
}

fn item(line: &str) -> Option<&str> {
    let mut characters = line.chars();
    let bullet = characters.next()?;
    let rest = characters.as_str();
    matches!(
        bullet,
        '-' | '*' | '+' | '\u{2022}' | '\u{25cf}' | '\u{2023}' | '\u{b7}' | '\u{25e6}'
    )
    .then_some(rest)
    .filter(|rest| rest.starts_with(char::is_whitespace))
    .map(str::trim)
}

fn is_record(line: &str) -> bool {
    let is_row = line.contains(" | ");
    let is_named = line
        .split_once(": ")
        .is_some_and(|(name, _)| name.split(' ').count() <= 6);
    let is_numbered = line
        .split_once([' ', ')'])
        .is_some_and(|(first, rest)| !rest.is_empty() && first.trim_end_matches('.').parse::<u32>().is_ok());
    is_row || is_named || is_numbered
}

fn looks_like_heading(line: &str) -> bool {
    line.len() <= 60
        && line.split(' ').count() <= 8
        && !line.ends_with(['.', ';', ',', '!', '?', ':'])
        && line.starts_with(|character: char| character.is_uppercase() || character.is_numeric())
        && line.contains(char::is_alphabetic)
}

/// A heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// Depth from 1 to 6, [`GUESSED`], or 0 for a title that is not marked as a heading.
    pub level: usize,
    /// The text, without marks.
    pub text: String,
}

/// The headings of a document, by offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    title: Option<String>,
    headings: Vec<(usize, Heading)>,
}

impl Outline {
    /// Reads the headings of a text. Its first line is its title, whatever it looks like.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let lines = lines(text);
        let title = lines.first().map(|line| line.text.chars().take(120).collect());
        let headings = lines
            .iter()
            .filter_map(|line| match line.kind {
                Kind::Heading(level) => Some((
                    line.offset,
                    Heading {
                        level,
                        text: line.text.to_owned(),
                    },
                )),
                Kind::Record | Kind::Prose => None,
            })
            .collect();
        Self { title, headings }
    }

    /// The title and the headings that a reader at that offset has passed and not left, outermost first. A heading that
    /// stands exactly there is not among them.
    #[must_use]
    pub fn path_at(&self, offset: usize) -> Vec<Heading> {
        let mut path: Vec<Heading> = Vec::new();
        for (_, heading) in self.headings.iter().take_while(|(at, _)| *at < offset) {
            enter(&mut path, heading.clone());
        }
        if let Some(title) = self.title.as_ref()
            && offset > 0
            && !path.iter().any(|heading| heading.text == *title)
        {
            path.insert(
                0,
                Heading {
                    level: 0,
                    text: title.clone(),
                },
            );
        }
        path
    }
}

/// Puts a heading on a path and takes off those that it ends.
pub fn enter(path: &mut Vec<Heading>, heading: Heading) {
    path.retain(|above| above.level < heading.level);
    path.push(heading);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_known_by_their_marks_or_by_standing_alone() {
        let text = "# Survey\n\nRoof\n\nType: Shingles\nIt is old. Nobody knows.\n- one item\n";
        let kinds: Vec<(&str, Kind)> = lines(text).iter().map(|line| (line.text, line.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("Survey", Kind::Heading(1)),
                ("Roof", Kind::Heading(GUESSED)),
                ("Type: Shingles", Kind::Record),
                ("It is old. Nobody knows.", Kind::Prose),
                ("one item", Kind::Record),
            ]
        );
    }

    #[test]
    fn a_heading_ends_where_one_of_its_own_depth_begins() {
        let text = "# Show\n\n## Season 1\n\n- A\n\n## Season 2\n\n- B\n";
        let outline = Outline::of(text);
        let path: Vec<(usize, String)> = outline
            .path_at(text.len())
            .into_iter()
            .map(|heading| (heading.level, heading.text))
            .collect();
        assert_eq!(path, [(1, "Show".to_owned()), (2, "Season 2".to_owned())]);
        assert_eq!(outline.path_at(0), []);
    }
}
