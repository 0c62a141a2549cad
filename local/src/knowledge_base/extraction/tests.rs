//! Files of every kind, made here.

use std::io::Write as _;

use super::*;

async fn read(name: &str, bytes: impl Into<Bytes>) -> Result<String, Unreadable> {
    let pages = extract(Format::of(name).unwrap(), bytes.into(), Limits::default()).await?;
    Ok(pages.into_iter().map(|page| page.text).collect::<Vec<_>>().join("\n"))
}

fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, contents) in members {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(contents.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A PDF from the contents of its pages and whatever objects they need besides (numbered from 100).
fn pdf(pages: &[&str], others: &[&str]) -> Vec<u8> {
    let mut objects = vec![
        (1, "<< /Type /Catalog /Pages 2 0 R >>".to_owned()),
        (
            3,
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
        ),
    ];
    let mut kids = Vec::new();
    for (index, content) in pages.iter().enumerate() {
        let number = 10 + 2 * index;
        kids.push(format!("{number} 0 R"));
        objects.push((
            number,
            format!(
                "<< /Type /Page /Parent 2 0 R /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> \
                 /XObject << /X1 100 0 R >> >> /MediaBox [0 0 612 792] >>",
                number + 1
            ),
        ));
        objects.push((
            number + 1,
            format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        ));
    }
    objects.push((
        2,
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()),
    ));
    objects.extend(
        others
            .iter()
            .enumerate()
            .map(|(index, object)| (100 + index, (*object).to_owned())),
    );
    objects.sort_by_key(|(number, _)| *number);
    let mut file = b"%PDF-1.4\n".to_vec();
    let mut sections = String::from("0 1\n0000000000 65535 f \n");
    for (number, object) in &objects {
        sections.push_str(&format!("{number} 1\n{:010} 00000 n \n", file.len()));
        file.extend(format!("{number} 0 obj\n{object}\nendobj\n").bytes());
    }
    let xref = file.len();
    let size = objects.last().unwrap().0 + 1;
    file.extend(format!("xref\n{sections}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n").bytes());
    file
}

fn page(lines: &[(&str, u32, u32)]) -> String {
    let mut content = String::from("0.5 w m 10 10 l\nBT\n");
    for (text, size, y) in lines {
        content.push_str(&format!("/F1 {size} Tf 1 0 0 1 72 {y} Tm ({text}) Tj\n"));
    }
    content.push_str("ET\n");
    content
}

#[tokio::test]
async fn a_pdf_is_read_page_by_page_with_its_headings_and_paragraphs() {
    let long = "This line is long enough to reach the margin on the right, so that the next one goes";
    let first = page(&[
        ("Handbook", 20, 720),
        ("Leave", 14, 690),
        (long, 12, 660),
        ("on in it. It ends here.", 12, 646),
    ]);
    let second = page(&[("Owner: Facilities", 12, 720), ("Room: 12", 12, 706)]);
    let file = pdf(&[&first, &second], &[]);
    let pages = extract(Format::Pdf, file.into(), Limits::default()).await.unwrap();
    assert_eq!(
        pages.iter().map(|page| page.number).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
    assert_eq!(
        pages[0].text,
        format!("# Handbook\n\n## Leave\n\n{long} on in it. It ends here.\n")
    );
    assert_eq!(pages[1].text, "Owner: Facilities\nRoom: 12\n");
}

#[tokio::test]
async fn a_pdf_that_was_cut_off_is_refused_wherever_it_was() {
    let file = pdf(&[&page(&[("The access code is 7431.", 12, 700)])], &[]);
    assert!(read("a.pdf", file.clone()).await.unwrap().contains("7431"));
    for length in (0..file.len() - 2).step_by(41) {
        let error = read("a.pdf", file[..length].to_vec()).await.unwrap_err();
        assert!(matches!(error, Unreadable::Malformed(_)), "{length}: {error}");
    }
}

#[tokio::test]
async fn a_form_that_contains_itself_ends_nothing() {
    let content = "BT /F1 12 Tf 1 0 0 1 72 700 Tm (inside of it) Tj ET /X1 Do";
    let form = format!(
        "<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources << /Font << /F1 3 0 R >> \
         /XObject << /X1 100 0 R >> >> /Length {} >>\nstream\n{content}\nendstream",
        content.len()
    );
    let text = read("a.pdf", pdf(&["q /X1 Do Q /X9 Do"], &[&form])).await.unwrap();
    assert_eq!(text.trim(), "inside of it");
}

#[tokio::test]
async fn hostile_bytes_are_refused() {
    for (name, bytes) in [
        ("a.pdf", b"not a pdf at all startxref %%EOF".to_vec()),
        ("a.docx", b"PK\x03\x04 not an archive".to_vec()),
        ("a.xlsx", b"PK\x03\x04 not an archive".to_vec()),
        ("a.xls", vec![0xD0, 0xCF, 0x11, 0xE0, 1, 2, 3]),
        ("a.txt", vec![0, 1, 2, 3]),
        ("a.docx", archive(&[("other.xml", "<a/>")])),
        ("a.docx", archive(&[("word/document.xml", "<w:document><w:body><w:p>")])),
    ] {
        let result = read(name, bytes).await;
        assert!(
            matches!(result, Err(Unreadable::Malformed(_) | Unreadable::Empty)),
            "{name}: {result:?}"
        );
    }
    assert!(matches!(read("a.doc", "x").await, Err(Unreadable::Unsupported(_))));
    assert_eq!(read("a.txt", " \n").await, Err(Unreadable::Empty));
    assert_eq!(Format::of("a.exe"), None);
    assert_eq!(Format::of("T/A.PDF"), Some(Format::Pdf));
}

#[tokio::test]
async fn limits_hold() {
    let limits = Limits {
        file_bytes: 10,
        ..Limits::default()
    };
    let result = extract(Format::Text, Bytes::from_static(b"eleven bytes"), limits).await;
    assert!(matches!(result, Err(Unreadable::TooLarge(_))));
    let limits = Limits {
        expanded_bytes: 1_000,
        ..Limits::default()
    };
    let bomb = archive(&[("word/document.xml", &" ".repeat(2_000))]);
    let result = extract(Format::Word, bomb.into(), limits).await;
    assert!(matches!(result, Err(Unreadable::TooLarge(_))));
    let limits = Limits {
        time: Duration::ZERO,
        ..Limits::default()
    };
    let result = extract(Format::Csv, Bytes::from_static(b"a,b\n1,2\n"), limits).await;
    assert!(matches!(result, Err(Unreadable::OutOfTime(_))));
}

fn deflated(contents: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

/// The PDF of one page whose content is that stream.
fn compressed_pdf(stream: &[u8]) -> Vec<u8> {
    let marker = "MARKER";
    let file = pdf(&[marker], &[]);
    let old = format!("<< /Length {} >>\nstream\n{marker}\n", marker.len());
    let at = file
        .windows(old.len())
        .position(|window| window == old.as_bytes())
        .unwrap();
    let mut new = format!("<< /Filter /FlateDecode /Length {} >>\nstream\n", stream.len()).into_bytes();
    new.extend(stream);
    new.push(b'\n');
    // What stands behind the page moves; only the cross-reference table does, and `startxref` is found by looking.
    let shift = new.len() - old.len();
    let mut moved = file[..at].to_vec();
    moved.extend(&new);
    moved.extend(&file[at + old.len()..]);
    let xref = file.windows(5).rposition(|window| window == b"\nxref").unwrap() + 1;
    let (from, to) = (format!("startxref\n{xref}\n"), format!("startxref\n{}\n", xref + shift));
    let at = moved
        .windows(from.len())
        .rposition(|window| window == from.as_bytes())
        .unwrap();
    moved.splice(at..at + from.len(), to.bytes());
    moved
}

#[tokio::test]
async fn a_page_that_breaks_off_inside_is_refused() {
    let content = page(&[
        ("The access code is 7431.", 12, 700),
        ("The gate code is 9000.", 12, 680),
    ]);
    let whole = deflated(content.as_bytes());
    assert!(read("a.pdf", compressed_pdf(&whole)).await.unwrap().contains("9000"));
    let error = read("a.pdf", compressed_pdf(&whole[..whole.len() - 20]))
        .await
        .unwrap_err();
    assert!(matches!(error, Unreadable::Malformed(_)), "{error}");
    let limits = Limits {
        expanded_bytes: 10_000,
        ..Limits::default()
    };
    let bomb = compressed_pdf(&deflated(&[b' '; 20_000]));
    let result = extract(Format::Pdf, bomb.into(), limits).await;
    assert!(matches!(result, Err(Unreadable::TooLarge(_))), "{result:?}");
}

#[tokio::test]
async fn deep_nesting_ends_one_document_only() {
    let html = format!("{}deep{}", "<div>".repeat(100_000), "</div>".repeat(100_000));
    assert!(matches!(read("a.html", html).await, Err(Unreadable::Malformed(_))));
    let html = format!("{}deep{}", "<div>".repeat(500), "</div>".repeat(500));
    assert_eq!(read("a.html", html).await.unwrap().trim(), "deep");
    let xml = format!("<w:document>{}", "<w:tbl>".repeat(100_000));
    assert!(matches!(
        read("a.docx", archive(&[("word/document.xml", &xml)])).await,
        Err(Unreadable::Malformed(_))
    ));
    let markdown = format!("{}deep", "> ".repeat(50_000));
    assert!(read("a.md", markdown).await.is_ok_and(|text| text.contains("deep")));
}

const DOCUMENT: &str = r#"<?xml version="1.0"?><w:document xmlns:w="w" xmlns:mc="mc"><w:body>
<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Terms &amp; conditions</w:t></w:r></w:p>
<w:p><w:r><w:t xml:space="preserve">One </w:t></w:r><w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins><w:r><w:t>new&#x20;word.</w:t></w:r></w:ins></w:p>
<w:p><w:pPr><w:numPr><w:ilvl w:val="0"/></w:numPr></w:pPr><w:r><w:t>Apple</w:t></w:r></w:p>
<w:tbl>
<w:tr><w:tc><w:p><w:r><w:t>Season</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>Episode</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>Title</w:t></w:r></w:p></w:tc></w:tr>
<w:tr><w:tc><w:p><w:r><w:t>2</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>1</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>Ice</w:t></w:r></w:p></w:tc></w:tr>
</w:tbl>
<w:p><w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent></mc:Choice>
<mc:Fallback><w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent></mc:Fallback></mc:AlternateContent></w:r></w:p>
</w:body></w:document>"#;

#[tokio::test]
async fn a_word_document_is_read_with_tables_boxes_and_notes() {
    let footnotes = r#"<w:footnotes xmlns:w="w"><w:footnote w:type="separator" w:id="0"><w:p/></w:footnote>
        <w:footnote w:id="1"><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnote></w:footnotes>"#;
    let comments = r#"<w:comments xmlns:w="w"><w:comment w:id="0" w:author="A"><w:p><w:r><w:t>A remark.</w:t></w:r></w:p></w:comment></w:comments>"#;
    let file = archive(&[
        ("word/document.xml", DOCUMENT),
        ("word/footnotes.xml", footnotes),
        ("word/comments.xml", comments),
    ]);
    let text = read("a.docx", file).await.unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        lines,
        [
            "# Terms & conditions",
            "One new word.",
            "- Apple",
            "Season: 2 | Episode: 1 | Title: Ice",
            "In a box",
            "Footnote 1: A note.",
            "Comment 1: A remark.",
        ]
    );
}

#[tokio::test]
async fn a_spreadsheet_is_read_sheet_by_sheet() {
    let workbook = r#"<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Rates" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
    let relations = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#;
    let sheet = r#"<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>City</t></is></c><c r="B1" t="inlineStr"><is><t>Rate</t></is></c></row><row r="2"><c r="A2" t="inlineStr"><is><t>Example City</t></is></c><c r="B2"><v>12.5</v></c></row><row r="1048576"><c r="XFD1048576"><v>7</v></c></row></sheetData></worksheet>"#;
    let root = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
    let file = archive(&[
        ("_rels/.rels", root),
        ("xl/workbook.xml", workbook),
        ("xl/_rels/workbook.xml.rels", relations),
        ("xl/worksheets/sheet1.xml", sheet),
    ]);
    assert_eq!(
        read("a.xlsx", file).await.unwrap().trim(),
        "# Rates\n\nCity: Example City | Rate: 12.5\n7"
    );
}

#[tokio::test]
async fn markup_becomes_lines() {
    let html = "<html><head><title>T</title><script>alert(1)</script><style>p{}</style></head><body><h2>Rooms</h2>\
        <p>Two <b>large</b> rooms &amp; a <a href='https://example.com'>kitchen</a>.</p><ul><li>Bed</li><li>Desk</li></ul>\
        <table><tr><th>Room</th><th>Area</th></tr><tr><td>North</td><td>20</td></tr></table></body></html>";
    let text = read("a.html", html).await.unwrap();
    for line in [
        "## Rooms",
        "Two large rooms & a kitchen.",
        "- Bed",
        "- Desk",
        "Room: North | Area: 20",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("alert") && !text.contains("p{}"), "{text}");
    let markdown = "# Title\n\nSome *emphasis* and `code`\non two lines.\n\n1. First\n2. Second\n\n| A | B |\n|---|---|\n| 1 | 2 |\n";
    assert_eq!(
        read("a.md", markdown).await.unwrap().trim(),
        "# Title\n\nSome emphasis and code on two lines.\n\n- First\n- Second\n\nA: 1 | B: 2"
    );
}

#[tokio::test]
async fn text_comes_in_many_encodings() {
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain("grün".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    assert_eq!(read("a.txt", utf16).await.unwrap(), "grün");
    assert_eq!(read("a.txt", b"gr\xFCn\r\nblau".to_vec()).await.unwrap(), "grün\nblau");
    assert_eq!(read("a.txt", "\u{feff}grün").await.unwrap(), "grün");
    assert_eq!(
        read("a.csv", "Name;Ort\n\"Müller; Sohn\";Bonn\n").await.unwrap(),
        "Name: Müller; Sohn | Ort: Bonn\n"
    );
}
