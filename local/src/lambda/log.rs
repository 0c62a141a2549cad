//! What functions write to their standard output and error.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use super::{ProcessId, lock};
use crate::template::LogicalId;

/// The longest line that is kept, in bytes; what is longer becomes several. CloudWatch's limit of an event is 256 KB.
const MAX_LINE_BYTES: usize = 256 << 10;

/// Which of the two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a process wrote.
#[derive(Debug, Clone, Serialize)]
pub struct LogLine {
    /// When it was read.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The function.
    pub function: LogicalId,
    /// The tenant that the process was started for.
    pub tenant: Option<String>,
    /// The process.
    pub process: ProcessId,
    /// Where it wrote it.
    pub stream: LogStream,
    /// The line, without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// A bounded number of bytes in memory, and all of it in a file where one is named.
pub(super) struct Log {
    limit: usize,
    state: Mutex<State>,
}

struct State {
    lines: VecDeque<LogLine>,
    bytes: usize,
    file: Option<File>,
}

impl Log {
    pub(super) fn open(limit: usize, file: Option<&Path>) -> std::io::Result<Self> {
        let file = file
            .map(|path| File::options().create(true).append(true).open(path))
            .transpose()?;
        Ok(Self {
            limit,
            state: Mutex::new(State {
                lines: VecDeque::new(),
                bytes: 0,
                file,
            }),
        })
    }

    pub(super) fn push(&self, line: LogLine) {
        let mut state = lock(&self.state);
        if let Some(file) = &mut state.file
            && let Ok(mut json) = serde_json::to_vec(&line)
        {
            json.push(b'\n');
            if let Err(error) = file.write_all(&json) {
                tracing::warn!(%error, "the log file can't be written any more");
                state.file = None;
            }
        }
        state.bytes += line.text.len();
        state.lines.push_back(line);
        while state.bytes > self.limit {
            let Some(oldest) = state.lines.pop_front() else { break };
            state.bytes = state.bytes.saturating_sub(oldest.text.len());
        }
    }

    pub(super) fn lines(&self) -> Vec<LogLine> {
        lock(&self.state).lines.iter().cloned().collect()
    }
}

/// Calls `sink` with each line of `reader` until its end.
pub(super) async fn read_lines(mut reader: impl AsyncBufRead + Unpin, mut sink: impl FnMut(String)) {
    let mut line: Vec<u8> = Vec::new();
    // A pipe that can't be read any more is at its end.
    while let Ok(chunk) = reader.fill_buf().await {
        if chunk.is_empty() {
            break;
        }
        let length = chunk.len();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.last() == Some(&b'\n') {
                line.pop();
                sink(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            } else if line.len() >= MAX_LINE_BYTES {
                sink(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        }
        reader.consume(length);
    }
    if !line.is_empty() {
        sink(String::from_utf8_lossy(&line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            at: OffsetDateTime::UNIX_EPOCH,
            function: LogicalId::new("EchoFunction"),
            tenant: Some("acme".to_owned()),
            process: ProcessId(7),
            stream: LogStream::Stdout,
            text: text.to_owned(),
        }
    }

    #[tokio::test]
    async fn lines_are_split_at_their_ends_and_at_the_limit() {
        let long = "x".repeat(MAX_LINE_BYTES + 5);
        let text = format!("one\n\ntwo\n{long}");
        let mut lines = Vec::new();
        read_lines(text.as_bytes(), |line| lines.push(line)).await;
        assert_eq!(lines[..3], ["one", "", "two"]);
        assert_eq!(lines[3..].concat(), long);
    }

    #[test]
    fn the_oldest_lines_go_first_and_the_file_has_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.jsonl");
        let log = Log::open(8, Some(&file)).unwrap();
        for text in ["1234", "5678", "9"] {
            log.push(line(text));
        }
        let texts: Vec<String> = log.lines().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["5678", "9"]);
        let written = std::fs::read_to_string(file).unwrap();
        assert_eq!(
            written.lines().next(),
            Some(
                r#"{"at":"1970-01-01T00:00:00Z","function":"EchoFunction","tenant":"acme","process":7,"stream":"stdout","text":"1234"}"#
            )
        );
        assert_eq!(written.lines().count(), 3);
    }
}
