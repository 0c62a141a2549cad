//! Whether content is what its media type says, by its first bytes.
//!
//! It keeps out what was plainly mislabelled, such as a program declared as a PDF; whether a document can be read is the
//! knowledge base's finding. Detection crates were not used: what tells Word from Excel before 2007 stands anywhere in the
//! file, so they guess from a beginning, and a wrong guess would refuse a good document.

use bulkhead_core::document::MediaType;

/// How many of the first bytes are looked at.
pub(crate) const BEGINNING: u64 = 8192;

/// Compound files, which Word and Excel wrote before 2007 (MS-CFB, 2.2).
const COMPOUND: &[u8] = &[0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];
/// The header of a ZIP archive's member (APPNOTE.TXT, 4.3.7): 30 bytes, then its name.
const MEMBER: &[u8] = b"PK\x03\x04";

/// Whether content that begins so may be of `media_type`; `is_whole` if that is all of it.
pub(crate) fn matches(media_type: MediaType, beginning: &[u8], is_whole: bool) -> bool {
    match media_type {
        MediaType::Text | MediaType::Markdown | MediaType::Html | MediaType::Csv => is_text(beginning, is_whole),
        // Readers accept a header within the first kilobyte.
        MediaType::Pdf => beginning.windows(5).take(1024).any(|window| window == b"%PDF-"),
        MediaType::Doc | MediaType::Xls => beginning.starts_with(COMPOUND),
        MediaType::Docx => is_archive(beginning, "word/"),
        MediaType::Xlsx => is_archive(beginning, "xl/"),
    }
}

/// UTF-8 without NUL; at the end of a beginning a character may be cut.
fn is_text(beginning: &[u8], is_whole: bool) -> bool {
    let is_utf8 = match std::str::from_utf8(beginning) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && !is_whole,
    };
    is_utf8 && !beginning.contains(&0)
}

/// An archive that does not show itself to be another Office format's: members come in any order, so that the `own`
/// folder may begin later.
fn is_archive(beginning: &[u8], own: &str) -> bool {
    let has = |folder: &str| members(beginning).any(|name| name.starts_with(folder.as_bytes()));
    let is_other = || {
        ["word/", "xl/", "ppt/"]
            .iter()
            .any(|folder| *folder != own && has(folder))
    };
    beginning.starts_with(MEMBER) && (has(own) || !is_other())
}

/// The names of the archive's members that begin within these bytes.
fn members(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..bytes.len())
        .filter_map(|at| bytes.get(at..))
        .filter(|rest| rest.starts_with(MEMBER))
        .filter_map(|rest| {
            let length = u16::from_le_bytes([*rest.get(26)?, *rest.get(27)?]);
            rest.get(30..30 + usize::from(length))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names {
            bytes.extend_from_slice(MEMBER);
            bytes.extend_from_slice(&[0; 22]);
            bytes.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b"deflated");
        }
        bytes
    }

    #[test]
    fn text_is_utf_8_without_nul() {
        let text = |bytes: &[u8], is_whole| matches(MediaType::Csv, bytes, is_whole);
        assert!(text("name,größe".as_bytes(), true));
        assert!(text(b"\xEF\xBB\xBFname", true));
        assert!(!text(b"gr\xF6\xDFe", true));
        assert!(!text(b"a\0b", true));
        assert!(!text(b"\xFF\xFEa\0", true));
        // Cut within a character: fine at the end of a beginning, not at the end of the content.
        assert!(text(b"gr\xC3", false));
        assert!(!text(b"gr\xC3", true));
        assert!(!text(b"gr\xC3\xC3", false));
    }

    #[test]
    fn a_pdf_says_so_within_its_first_kilobyte() {
        assert!(matches(MediaType::Pdf, b"%PDF-1.7\n", true));
        assert!(matches(
            MediaType::Pdf,
            &[&[b' '; 1000][..], b"%PDF-1.7"].concat(),
            true
        ));
        assert!(!matches(
            MediaType::Pdf,
            &[&[b' '; 2000][..], b"%PDF-1.7"].concat(),
            true
        ));
        assert!(!matches(MediaType::Pdf, b"MZ\x90\0", true));
        assert!(!matches(MediaType::Pdf, b"", true));
    }

    #[test]
    fn office_formats_are_told_apart_where_they_show_it() {
        let docx = archive(&["[Content_Types].xml", "_rels/.rels", "word/document.xml"]);
        let xlsx = archive(&["[Content_Types].xml", "xl/workbook.xml"]);
        let early = archive(&["[Content_Types].xml", "_rels/.rels"]);
        assert!(matches(MediaType::Docx, &docx, false));
        assert!(matches(MediaType::Xlsx, &xlsx, false));
        assert!(!matches(MediaType::Docx, &xlsx, false));
        assert!(!matches(MediaType::Xlsx, &docx, false));
        assert!(!matches(MediaType::Docx, &archive(&["ppt/presentation.xml"]), false));
        assert!(matches(MediaType::Docx, &early, false) && matches(MediaType::Xlsx, &early, false));
        assert!(!matches(MediaType::Docx, COMPOUND, false));
        assert!(matches(MediaType::Doc, COMPOUND, false) && matches(MediaType::Xls, COMPOUND, false));
        assert!(!matches(MediaType::Doc, &docx, false));
        // A header that ends early, and one whose name does.
        assert!(matches(MediaType::Docx, MEMBER, false));
        assert!(matches(MediaType::Docx, &[MEMBER, &[0xFF; 26]].concat(), false));
    }
}
