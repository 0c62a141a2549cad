//! From a file's bytes to its text, as the knowledge base's default parser does it: text only, no pictures.
//!
//! [`extract`] runs on a thread of its own with a large stack, inside limits of size and time: uploaded files are
//! hostile, and a parser that panics must cost one document and nothing else. Whatever can't be read completely is
//! refused with a reason, because half a document that looks whole is worse than none.
//!
//! Structure is kept as far as a line can say it, in the manner of Markdown: `# ` before headings, `- ` before list
//! items, and one line per table row in which every cell is named by its column (`Season: 2 | Title: The Lighthouse`), so
//! that a row still means something after the text was cut into passages.
//!
//! Not here: optical character recognition, pictures, the binary `.doc` format, files with a password.

mod markup;
mod pdf;
mod table;
mod word;

use std::time::{Duration, Instant};

use bytes::Bytes;

/// What Bedrock's default parser reads, told apart by the file name's extension as Bedrock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.txt`
    Text,
    /// `.md`
    Markdown,
    /// `.html`, `.htm`
    Html,
    /// `.csv`
    Csv,
    /// `.pdf`
    Pdf,
    /// `.docx`
    Word,
    /// `.doc`, which is known and not read
    LegacyWord,
    /// `.xls`, `.xlsx`
    Spreadsheet,
}

impl Format {
    /// The format of a file of that name or key, or `None` where Bedrock knows none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "txt" => Some(Self::Text),
            "md" => Some(Self::Markdown),
            "html" | "htm" => Some(Self::Html),
            "csv" => Some(Self::Csv),
            "pdf" => Some(Self::Pdf),
            "docx" => Some(Self::Word),
            "doc" => Some(Self::LegacyWord),
            "xls" | "xlsx" => Some(Self::Spreadsheet),
            _ => None,
        }
    }
}

/// How much one document may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size of the file in bytes. Bedrock's is 50 MB.
    pub file_bytes: usize,
    /// Size of what a compressed file expands to, in bytes.
    pub expanded_bytes: u64,
    /// Length of the extracted text in bytes.
    pub text_bytes: usize,
    /// Time until the document is given up. The thread that works on it ends at its next look at the clock.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 50 * 1024 * 1024,
            expanded_bytes: 256 * 1024 * 1024,
            text_bytes: 16 * 1024 * 1024,
            time: Duration::from_secs(60),
        }
    }
}

/// One page, or the whole document where its format has no pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The page's number from 1, or `None` where the format has no pages.
    pub number: Option<u32>,
    /// The text, with the structure that the module's page describes.
    pub text: String,
}

/// Why a document was refused. The text is shown to the document's owner as the status reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Larger than the limit before or after it was unpacked.
    #[error("The document exceeds a limit: {0}.")]
    TooLarge(String),
    /// Not one of the formats that are read.
    #[error("{0}")]
    Unsupported(String),
    /// Damaged, cut off, or not what its name says.
    #[error("The document could not be read completely: {0}.")]
    Malformed(String),
    /// Read, and found to contain no text.
    #[error("The document contains no text.")]
    Empty,
    /// The time limit passed.
    #[error("The document could not be read within {0:?}.")]
    OutOfTime(Duration),
}

/// What a parser works within.
#[derive(Debug, Clone)]
struct Budget {
    limits: Limits,
    deadline: Instant,
}

impl Budget {
    /// To be called once per page, sheet, row or the like.
    fn check(&self, text_bytes: usize) -> Result<(), Unreadable> {
        if Instant::now() > self.deadline {
            return Err(Unreadable::OutOfTime(self.limits.time));
        }
        if text_bytes > self.limits.text_bytes {
            return Err(Unreadable::TooLarge(format!(
                "more than {} bytes of text",
                self.limits.text_bytes
            )));
        }
        Ok(())
    }
}

/// Deep enough for parsers that recurse over nested structures; memory is only taken as far as it is used.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Reads the text of a document.
///
/// # Errors
///
/// [`Unreadable`], with the reason to show.
pub async fn extract(format: Format, bytes: Bytes, limits: Limits) -> Result<Vec<Page>, Unreadable> {
    if bytes.len() > limits.file_bytes {
        return Err(Unreadable::TooLarge(format!("more than {} bytes", limits.file_bytes)));
    }
    let time = limits.time;
    let budget = Budget {
        deadline: Instant::now() + time,
        limits,
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("extraction".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // Nobody listens any more once the time limit has passed.
            let _ = sender.send(extract_now(format, &bytes, &budget));
        })
        .map_err(|error| Unreadable::Malformed(format!("no thread could be started: {error}")))?;
    match tokio::time::timeout(time, receiver).await {
        Ok(Ok(result)) => result,
        // The sender was dropped without a word: the thread panicked.
        Ok(Err(_)) => Err(Unreadable::Malformed("its structure is damaged".to_owned())),
        Err(_) => Err(Unreadable::OutOfTime(time)),
    }
}

fn extract_now(format: Format, bytes: &[u8], budget: &Budget) -> Result<Vec<Page>, Unreadable> {
    let whole = |text: String| vec![Page { number: None, text }];
    let pages = match format {
        Format::Text => whole(decode(bytes)?),
        Format::Markdown => whole(markup::markdown(&decode(bytes)?)),
        Format::Html => whole(markup::html(&decode(bytes)?)?),
        Format::Csv => whole(table::csv(&decode(bytes)?, budget)?),
        Format::Pdf => pdf::extract(bytes, budget)?,
        Format::Word => whole(word::extract(bytes, budget)?),
        Format::Spreadsheet => whole(table::spreadsheet(bytes, budget)?),
        Format::LegacyWord => {
            return Err(Unreadable::Unsupported(
                "The local stack can't read the binary .doc format; save the document as .docx.".to_owned(),
            ));
        }
    };
    let length = pages.iter().map(|page| page.text.len()).sum();
    budget.check(length)?;
    if pages.iter().all(|page| page.text.trim().is_empty()) {
        return Err(Unreadable::Empty);
    }
    Ok(pages)
}

/// Text of unknown encoding: UTF-8, UTF-16 with a byte order mark, or else Latin-1. Binary files are refused.
fn decode(bytes: &[u8]) -> Result<String, Unreadable> {
    let units = |decode: fn([u8; 2]) -> u16, rest: &[u8]| {
        let units: Vec<u16> = rest.as_chunks::<2>().0.iter().map(|pair| decode(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    let text = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [0xFF, 0xFE, rest @ ..] => units(u16::from_le_bytes, rest),
        [0xFE, 0xFF, rest @ ..] => units(u16::from_be_bytes, rest),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        },
    };
    if text.contains('\0') {
        return Err(Unreadable::Malformed("it is a binary file".to_owned()));
    }
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// An archive's claim about what it expands to, checked before anything is unpacked, and one that lies is caught by
/// [`read_member`].
fn open_archive(bytes: &[u8], budget: &Budget) -> Result<zip::ZipArchive<std::io::Cursor<Vec<u8>>>, Unreadable> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes.to_vec()))
        .map_err(|error| Unreadable::Malformed(error.to_string()))?;
    let mut expanded: u64 = 0;
    for index in 0..archive.len() {
        let member = archive
            .by_index_raw(index)
            .map_err(|error| Unreadable::Malformed(error.to_string()))?;
        expanded = expanded.saturating_add(member.size());
    }
    if expanded > budget.limits.expanded_bytes {
        return Err(Unreadable::TooLarge(format!(
            "it expands to more than {} bytes",
            budget.limits.expanded_bytes
        )));
    }
    Ok(archive)
}

/// One member of an archive as text, or `None` where there is none of that name.
fn read_member(
    archive: &mut zip::ZipArchive<std::io::Cursor<Vec<u8>>>,
    name: &str,
    budget: &Budget,
) -> Result<Option<String>, Unreadable> {
    use std::io::Read as _;
    let member = match archive.by_name(name) {
        Ok(member) => member,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(Unreadable::Malformed(error.to_string())),
    };
    let mut contents = Vec::new();
    let limit = budget.limits.expanded_bytes;
    member
        .take(limit.saturating_add(1))
        .read_to_end(&mut contents)
        .map_err(|error| Unreadable::Malformed(error.to_string()))?;
    if contents.len() as u64 > limit {
        return Err(Unreadable::TooLarge(format!("it expands to more than {limit} bytes")));
    }
    String::from_utf8(contents)
        .map(Some)
        .map_err(|_| Unreadable::Malformed(format!("{name} is not UTF-8")))
}

#[cfg(test)]
mod tests;
