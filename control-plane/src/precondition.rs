//! `If-Match`: changing what one has seen, and not what somebody has made of it since (RFC 9110, 13.1.1).

use bulkhead_core::error::Error;

/// Which versions a change may be made to. The entity tag of a resource is its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Any: the header is not there, or `*`.
    None,
    /// One of these.
    Versions(Vec<String>),
}

impl Precondition {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is neither `*` nor a list of entity tags.
    pub(crate) fn parse(header: Option<&str>) -> Result<Self, Error> {
        let Some(header) = header.map(str::trim).filter(|header| *header != "*") else {
            return Ok(Self::None);
        };
        let mut versions = Vec::new();
        for tag in header.split(',').map(str::trim) {
            let (weak, tag) = tag.strip_prefix("W/").map_or((false, tag), |tag| (true, tag));
            let version = tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .filter(|tag| tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
                .ok_or_else(|| Error::invalid("If-Match: the version in double quotes, a list of them, or *."))?;
            // A weak tag never matches: the comparison is the strong one.
            if !weak {
                versions.push(version.to_owned());
            }
        }
        Ok(Self::Versions(versions))
    }

    /// Refuses a resource of another version.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`].
    pub(crate) fn check(&self, version: u64) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::Versions(versions) if versions.contains(&version.to_string()) => Ok(()),
            Self::Versions(_) => Err(Error::PreconditionFailed),
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::error::Code;

    use super::*;

    fn check(header: Option<&str>) -> Result<(), Code> {
        Precondition::parse(header)
            .and_then(|precondition| precondition.check(7))
            .map_err(|error| error.code())
    }

    #[test]
    fn a_version_must_be_the_one_that_was_seen() {
        for holds in [
            None,
            Some("*"),
            Some("\"7\""),
            Some("\"6\", \"7\""),
            Some("W/\"1\",\"7\""),
        ] {
            assert_eq!(check(holds), Ok(()), "{holds:?}");
        }
        for fails in ["\"6\"", "\"07\"", "W/\"7\"", "\"\"", "\"seven\""] {
            assert_eq!(check(Some(fails)), Err(Code::PreconditionFailed), "{fails}");
        }
        for bad in [
            "",
            "7",
            "\"7",
            "7\"",
            "\"",
            "\"7\",",
            "\"7\" \"8\"",
            "*, \"7\"",
            "w/\"7\"",
        ] {
            assert_eq!(check(Some(bad)), Err(Code::InvalidRequest), "{bad}");
        }
    }
}
