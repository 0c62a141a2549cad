//! Texts with wildcards and variables: `*`, `?`, `${aws:PrincipalTag/…}`, and `${*}`, `${?}`, `${$}` for the signs
//! themselves. What a variable stands for is never a wildcard.
//!
//! Source: IAM User Guide, "IAM policy elements: Variables and tags"
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>). Default values (`${key, 'text'}`)
//! are not known here.

use super::Context;

/// The only variables: the tags of the caller's session.
const VARIABLES: &str = "aws:principaltag/";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A condition key, in lower case, whose value stands here.
    Variable(String),
    /// `?`: one character.
    One,
    /// `*`: any characters, none too.
    Any,
}

/// A text to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

impl Pattern {
    /// A text in which `*` and `?` are wildcards.
    pub(super) fn wildcards(text: &str) -> Result<Self, String> {
        Self::read(text, true)
    }

    /// A text in which they are themselves, as in `StringEquals`.
    pub(super) fn literal(text: &str) -> Result<Self, String> {
        Self::read(text, false)
    }

    fn read(text: &str, wildcards: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(inner) = rest.strip_prefix("${") {
                let (name, after) = inner
                    .split_once('}')
                    .ok_or_else(|| format!("{text}: a variable does not end"))?;
                rest = after;
                match name {
                    "*" | "?" | "$" => plain.push_str(name),
                    _ => {
                        let key = name.to_ascii_lowercase();
                        let tag = key.strip_prefix(VARIABLES);
                        if tag.is_none_or(|tag| tag.is_empty() || tag.contains(',')) {
                            return Err(format!("{text}: the variable {name} is not known"));
                        }
                        pieces.extend(text_piece(&mut plain));
                        pieces.push(Piece::Variable(key));
                    }
                }
                continue;
            }
            rest = rest.strip_prefix(next).unwrap_or_default();
            match next {
                '*' | '?' if wildcards => {
                    pieces.extend(text_piece(&mut plain));
                    pieces.push(if next == '*' { Piece::Any } else { Piece::One });
                }
                _ => plain.push(next),
            }
        }
        pieces.extend(text_piece(&mut plain));
        Ok(Self(pieces))
    }

    /// Whether the whole of `text` fits. A variable without a value fits nothing.
    pub(super) fn matches(&self, text: &str, context: &Context) -> bool {
        let mut tokens = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => tokens.extend(text.chars().map(Token::Is)),
                Piece::Variable(key) => match context.one(key) {
                    Some(value) => tokens.extend(value.chars().map(Token::Is)),
                    None => return false,
                },
                Piece::One => tokens.push(Token::One),
                Piece::Any => tokens.push(Token::Any),
            }
        }
        fits(&tokens, &text.chars().collect::<Vec<_>>())
    }

    pub(super) fn has_variable(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Variable(_)))
    }
}

fn text_piece(plain: &mut String) -> Option<Piece> {
    (!plain.is_empty()).then(|| Piece::Text(std::mem::take(plain)))
}

#[derive(Clone, Copy)]
enum Token {
    Is(char),
    One,
    Any,
}

/// Wildcard matching that goes back to the last `*` only, so that no pattern takes longer than the product of the lengths.
fn fits(pattern: &[Token], text: &[char]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(character) = text.get(seen) {
        match pattern.get(at) {
            Some(Token::Any) => {
                retry = Some((at + 1, seen));
                at += 1;
                continue;
            }
            Some(Token::One) => {}
            Some(Token::Is(wanted)) if wanted == character => {}
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    at = after;
                    seen = from + 1;
                    continue;
                }
                None => return false,
            },
        }
        at += 1;
        seen += 1;
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|token| matches!(token, Token::Any)))
}

/// An ARN with wildcards: the first five parts are compared one by one, the resource with all its colons and slashes as
/// one. `*` alone is every resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArnPattern(Option<Vec<Pattern>>);

impl ArnPattern {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(None));
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        if parts.len() != 6 || parts.first() != Some(&"arn") {
            return Err(format!("{text} is no ARN"));
        }
        if parts.get(2).is_some_and(|service| service.contains(['*', '?'])) {
            return Err(format!("{text}: the service has a wildcard"));
        }
        let parts: Vec<Pattern> = parts.into_iter().map(Pattern::wildcards).collect::<Result<_, _>>()?;
        // A variable's name has colons of its own.
        if parts.iter().take(5).any(Pattern::has_variable) {
            return Err(format!("{text}: a variable may only stand in the resource"));
        }
        Ok(Self(Some(parts)))
    }

    pub(super) fn matches(&self, arn: &str, context: &Context) -> bool {
        let Some(patterns) = &self.0 else { return true };
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        parts.len() == patterns.len()
            && patterns
                .iter()
                .zip(parts)
                .all(|(pattern, part)| pattern.matches(part, context))
    }
}
