//! Cutting a document into passages of about 300 tokens (1,200 characters) that overlap a little, as Bedrock's default
//! chunking does.

use text_splitter::{ChunkConfig, TextSplitter};

use super::extraction::Page;
use super::outline::{Heading, Outline};

/// Size of a passage in characters: 300 tokens at about four characters each.
const SIZE: usize = 1_200;

/// What two neighbours may share, in characters.
const OVERLAP: usize = 160;

/// One passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Position in the document, from 0.
    pub ordinal: u64,
    /// Byte offset in the document's text.
    pub offset: usize,
    /// Number of the page where it begins, from 1, where the format has pages.
    pub page: Option<u32>,
    /// Title and headings in force where it begins, outermost first. Not part of the text.
    pub path: Vec<Heading>,
    /// The text.
    pub text: String,
}

/// Cuts the pages of a document into passages. A passage may run over the end of a page.
///
/// # Errors
///
/// Never in practice: only if the overlap were larger than the size.
pub fn split(pages: &[Page]) -> anyhow::Result<Vec<Chunk>> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for page in pages {
        starts.push((text.len(), page.number));
        text.push_str(&page.text);
        text.push('\n');
    }
    let outline = Outline::of(&text);
    let splitter = TextSplitter::new(ChunkConfig::new(SIZE).with_overlap(OVERLAP)?);
    Ok(splitter
        .chunk_indices(&text)
        .enumerate()
        .map(|(ordinal, (offset, passage))| Chunk {
            ordinal: ordinal as u64,
            offset,
            page: starts
                .iter()
                .rev()
                .find(|(start, _)| *start <= offset)
                .and_then(|(_, number)| *number),
            path: outline.path_at(offset),
            text: passage.to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_know_their_page_and_their_headings() {
        let first = format!(
            "# Handbook\n\n## Leave\n\n{}",
            "Leave is granted on request. ".repeat(60)
        );
        let second = format!("## Pay\n\n{}", "Pay is monthly. ".repeat(60));
        let pages = [
            Page {
                number: Some(1),
                text: first,
            },
            Page {
                number: Some(2),
                text: second,
            },
        ];
        let chunks = split(&pages).unwrap();
        assert!(chunks.len() >= 3);
        assert!(chunks.iter().all(|chunk| chunk.text.chars().count() <= SIZE));
        let last = chunks.last().unwrap();
        assert_eq!(last.page, Some(2));
        let path = |chunk: &Chunk| {
            chunk
                .path
                .iter()
                .map(|heading| heading.text.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(path(last), ["Handbook", "Pay"]);
        assert_eq!(path(&chunks[1]), ["Handbook", "Leave"]);
        assert_eq!(
            chunks.iter().map(|chunk| chunk.ordinal).collect::<Vec<_>>(),
            (0..chunks.len() as u64).collect::<Vec<_>>()
        );
    }
}
