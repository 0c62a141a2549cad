//! Rows and columns: CSV files, spreadsheets, and the tables inside of other documents.

use super::{Budget, Unreadable, open_archive};

/// The text of a table: one line per row, every cell named by its column.
///
/// A table of two columns without a marked header row is read as names and values; one of a single row as it stands.
pub(super) fn render(rows: &[Vec<String>], header_is_marked: bool) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|cell| cell.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect()
        })
        .filter(|row: &Vec<String>| row.iter().any(|cell| !cell.is_empty()))
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    let mut line = |cells: Vec<String>| {
        text.push_str(&cells.join(" | "));
        text.push('\n');
    };
    let names_columns = |row: &[String]| {
        row.len() == columns
            && row.iter().filter(|cell| cell.is_empty()).count() * 2 < row.len()
            && !row.iter().any(|cell| cell.parse::<f64>().is_ok() || cell.len() > 80)
    };
    match rows.split_first() {
        None => {}
        Some((header, body))
            if !body.is_empty()
                && (header_is_marked && header.len() == columns || columns > 2 && names_columns(header)) =>
        {
            for row in body {
                line(
                    row.iter()
                        .zip(header)
                        .filter(|(cell, _)| !cell.is_empty())
                        .map(|(cell, name)| {
                            if name.is_empty() {
                                cell.clone()
                            } else {
                                format!("{name}: {cell}")
                            }
                        })
                        .collect(),
                );
            }
        }
        Some(_) => {
            for row in rows {
                match row.as_slice() {
                    [name, value] if !name.is_empty() && !value.is_empty() && !name.ends_with(':') => {
                        line(vec![format!("{name}: {value}")]);
                    }
                    [name, value] if name.ends_with(':') => line(vec![format!("{name} {value}")]),
                    _ => line(row.into_iter().filter(|cell| !cell.is_empty()).collect()),
                }
            }
        }
    }
    text
}

/// A CSV file. The first row names the columns, as Bedrock assumes too.
pub(super) fn csv(text: &str, budget: &Budget) -> Result<String, Unreadable> {
    let first = text.lines().next().unwrap_or_default();
    let delimiter = [b',', b';', b'\t']
        .into_iter()
        .max_by_key(|candidate| {
            // Of equally frequent ones the last wins; the comma goes first by the tuple.
            (
                first.bytes().filter(|byte| byte == candidate).count(),
                *candidate == b',',
            )
        })
        .unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    let mut length = 0;
    for record in reader.records() {
        let record = record.map_err(|error| Unreadable::Malformed(error.to_string()))?;
        let row: Vec<String> = record.iter().map(ToOwned::to_owned).collect();
        length += row.iter().map(String::len).sum::<usize>();
        budget.check(length)?;
        rows.push(row);
    }
    Ok(render(&rows, true))
}

/// A spreadsheet, with the name of each sheet as a heading.
pub(super) fn spreadsheet(bytes: &[u8], budget: &Budget) -> Result<String, Unreadable> {
    if bytes.starts_with(b"PK") {
        // The claim is checked; calamine unpacks by itself.
        open_archive(bytes, budget)?;
        sheets::<calamine::Xlsx<_>>(bytes, budget)
    } else {
        sheets::<calamine::Xls<_>>(bytes, budget)
    }
}

fn sheets<'a, R: calamine::Reader<std::io::Cursor<&'a [u8]>>>(
    bytes: &'a [u8],
    budget: &Budget,
) -> Result<String, Unreadable>
where
    R::Error: std::fmt::Display,
{
    let malformed = |error: R::Error| Unreadable::Malformed(error.to_string());
    let mut book = R::new(std::io::Cursor::new(bytes)).map_err(malformed)?;
    let mut text = String::new();
    for name in book.sheet_names() {
        let range = book.worksheet_range(&name).map_err(malformed)?;
        let mut rows = Vec::new();
        let mut length = text.len();
        for row in range.rows() {
            let row: Vec<String> = row.iter().map(cell).collect();
            length += row.iter().map(String::len).sum::<usize>();
            budget.check(length)?;
            rows.push(row);
        }
        if rows.iter().flatten().any(|cell| !cell.is_empty()) {
            text.push_str(&format!("# {name}\n\n{}\n", render(&rows, true)));
        }
    }
    Ok(text)
}

fn cell(data: &calamine::Data) -> String {
    match data {
        calamine::Data::Empty | calamine::Data::Error(_) => String::new(),
        calamine::Data::DateTime(value) if value.is_datetime() => {
            let (year, month, day, hour, minute, _, _) = value.to_ymd_hms_milli();
            if hour == 0 && minute == 0 {
                format!("{year:04}-{month:02}-{day:02}")
            } else {
                format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
            }
        }
        other => other.to_string().trim().to_owned(),
    }
}
