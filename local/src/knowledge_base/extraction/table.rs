//! Rows and columns: CSV files, spreadsheets, and the tables inside of other documents.

use std::collections::{BTreeMap, BTreeSet};

use calamine::Reader as _;

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
    let mut sheets = Vec::new();
    let mut length = 0;
    let cursor = std::io::Cursor::new(bytes);
    if bytes.starts_with(b"PK") {
        let malformed = |error: calamine::XlsxError| Unreadable::Malformed(error.to_string());
        // The claim is checked; calamine unpacks by itself.
        open_archive(bytes, budget)?;
        let mut book = calamine::Xlsx::new(cursor).map_err(malformed)?;
        for name in book.sheet_names() {
            // Cell by cell: two cells in opposite corners of a sheet would make a range of all that are between them.
            let mut sheet = Sheet::default();
            let mut cells = book.worksheet_cells_reader(&name).map_err(malformed)?;
            while let Some(found) = cells.next_cell().map_err(malformed)? {
                length += sheet.put(found.get_position(), &calamine::Data::from(found.get_value().clone()));
                budget.check(length)?;
            }
            sheets.push((name, sheet));
        }
    } else {
        let malformed = |error: calamine::XlsError| Unreadable::Malformed(error.to_string());
        let mut book: calamine::Xls<_> = calamine::Xls::new(cursor).map_err(malformed)?;
        for name in book.sheet_names() {
            let mut sheet = Sheet::default();
            for (row, column, data) in book.worksheet_range(&name).map_err(malformed)?.used_cells() {
                let position = (
                    u32::try_from(row).unwrap_or(u32::MAX),
                    u32::try_from(column).unwrap_or(u32::MAX),
                );
                length += sheet.put(position, data);
                budget.check(length)?;
            }
            sheets.push((name, sheet));
        }
    }
    Ok(sheets
        .into_iter()
        .filter(|(_, sheet)| !sheet.rows.is_empty())
        .map(|(name, sheet)| format!("# {name}\n\n{}\n", render(&sheet.into_rows(), true)))
        .collect())
}

/// The cells of a sheet that are not empty, by row and column.
#[derive(Default)]
struct Sheet {
    rows: BTreeMap<u32, BTreeMap<u32, String>>,
}

impl Sheet {
    /// Takes a cell and says how much it weighs, in bytes.
    fn put(&mut self, (row, column): (u32, u32), data: &calamine::Data) -> usize {
        let text = cell(data);
        let length = text.len() + 1;
        if !text.is_empty() {
            self.rows.entry(row).or_default().insert(column, text);
        }
        length
    }

    /// Rows of one length, without the columns that are empty everywhere.
    fn into_rows(self) -> Vec<Vec<String>> {
        let columns: BTreeSet<u32> = self.rows.values().flat_map(|row| row.keys().copied()).collect();
        let cells = |mut row: BTreeMap<u32, String>| {
            columns
                .iter()
                .map(|column| row.remove(column).unwrap_or_default())
                .collect()
        };
        self.rows.into_values().map(cells).collect()
    }
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
