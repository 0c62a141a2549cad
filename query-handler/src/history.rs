//! What was said before in a conversation, as a prompt may tell it.
//!
//! Whoever kept it, it is data: what a client says that the assistant said is worth no more than what the user said.
//! Not here: how it is delimited ([`crate::prompt`]).

use std::fmt;

use crate::marker::{Markers, Segment};
use crate::text;

/// How many turns are told, the last ones.
pub const MAX_TURNS: usize = 20;
/// How many UTF-16 units of a turn are told, the first ones.
pub const MAX_TURN: usize = 2000;

/// Who is said to have spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The one who asks.
    User,
    /// The one who answers.
    Assistant,
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        })
    }
}

/// What one of the two said, at most [`MAX_TURN`] UTF-16 units of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryTurn {
    /// Who.
    pub role: Speaker,
    /// What. Its numbers in brackets were those of other passages; there are none any more.
    pub text: String,
}

impl HistoryTurn {
    /// What `role` said.
    pub fn new(role: Speaker, text: &str) -> Self {
        let text = match role {
            Speaker::User => text::beginning(text, MAX_TURN).to_owned(),
            Speaker::Assistant => text::beginning(&without_markers(text), MAX_TURN).to_owned(),
        };
        Self { role, text }
    }
}

/// The last [`MAX_TURNS`] of `turns`, without those that say nothing.
pub fn recent(turns: impl IntoIterator<Item = HistoryTurn>) -> Vec<HistoryTurn> {
    let mut turns: Vec<HistoryTurn> = turns.into_iter().filter(|turn| !turn.text.trim().is_empty()).collect();
    turns.split_off(turns.len().saturating_sub(MAX_TURNS))
}

fn without_markers(text: &str) -> String {
    let mut markers = Markers::new(0);
    let mut segments = markers.push(text);
    segments.extend(markers.finish());
    let text = |segment| match segment {
        Segment::Text(text) => Some(text),
        Segment::Citation { .. } => None,
    };
    segments.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_turns_are_told() {
        let turns = (0..50).map(|n| HistoryTurn::new(Speaker::User, &n.to_string()));
        let told: Vec<String> = recent(turns).into_iter().map(|turn| turn.text).collect();
        assert_eq!(told, (30..50).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(recent([HistoryTurn::new(Speaker::Assistant, " [1]")]), []);
    }

    #[test]
    fn numbers_of_earlier_passages_are_forgotten() {
        let text = "Twelve [1][2], says a[i] [3].";
        assert_eq!(HistoryTurn::new(Speaker::Assistant, text).text, "Twelve, says a[i].");
        assert_eq!(HistoryTurn::new(Speaker::User, text).text, text);
    }

    #[test]
    fn a_long_turn_is_cut_between_characters() {
        let ship = "\u{1f6a2}";
        for (text, units) in [
            (ship.repeat(1000), 2000),
            (ship.repeat(1001), 2000),
            ("x".to_owned() + &ship.repeat(1000), 1999),
        ] {
            for role in [Speaker::User, Speaker::Assistant] {
                let told = HistoryTurn::new(role, &text).text;
                assert_eq!(told.encode_utf16().count(), units);
                assert!(text.starts_with(&told));
            }
        }
    }
}
