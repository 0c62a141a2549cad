//! The only door to DynamoDB: one gate per family of items, each opened by what proves the right to it.
//!
//! | gate | partition | opened by |
//! | --- | --- | --- |
//! | [`TenantStore`] | `TENANT#{tenant}` | a [`crate::tenant::TenantContext`], over a [`TenantTable`] |
//! | [`SharedCorpus`] | `TENANT#bulkhead-shared`, to read documents | the same and a plan that says so |
//! | [`Registry`] | `PROFILE#{tenant}`, `TENANTS` | a `&TenantId` to read one profile, a [`crate::tenant::OperatorContext`] for `*_across_tenants` |
//! | [`IngestionLease`] | `LEASE#ingestion` | anybody who ingests: it holds no tenant's data |
//!
//! Keys are derived here and nowhere else; clippy refuses the client's operations outside this module. Reads are
//! strongly consistent. Expiry is compared; the table's TTL only cleans up.

mod document;
#[cfg(test)]
mod fixture;
mod lease;
mod registry;
mod shared;
mod tenant;

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::credential::TenantCredentials;
use crate::error::Error;
use crate::time::Timestamp;

pub use self::lease::{Direct, IngestionLease, JobLease};
pub use self::registry::Registry;
pub use self::shared::SharedCorpus;
pub use self::tenant::{Declaration, TenantStore};

/// The most items that one page of a list holds.
pub const MAX_PAGE: usize = 100;
/// How many items a page holds if the client does not say.
const DEFAULT_PAGE: usize = 25;
/// The most bytes of a sort key that a list can end at.
const MAX_SORT_KEY: usize = 64;

type Item = HashMap<String, AttributeValue>;

/// The product's table, as a function itself or a tenant's data role reaches it. It can't be asked anything: the gates can.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// The table `name` in the account that `configuration` reaches, as a function itself may use it: no policy of one lets
    /// it touch what tenants keep, and no gate to that opens over this.
    pub fn new(configuration: &SdkConfig, name: &str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one client, which only the gates reach")]
        let client = Client::new(configuration);
        Self {
            client,
            name: name.to_owned(),
        }
    }

    async fn get(&self, pk: &str, sk: &str) -> Result<Option<Item>, Error> {
        #[expect(clippy::disallowed_methods, reason = "only the gates reach this")]
        let call = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key(pk, sk)))
            .consistent_read(true);
        Ok(call.send().await.map_err(failed)?.item)
    }
}

/// The table as one tenant's data role reaches it. The gates to what tenants keep open over this only.
#[derive(Clone, Debug)]
pub struct TenantTable(Table);

impl TenantTable {
    /// The table `name`, for the tenant whose credentials these are.
    pub fn new(credentials: &TenantCredentials, name: &str) -> Self {
        Self(Table::new(credentials.configuration(), name))
    }

    /// The table, for the gates that open over any: to the tenant's profile and the ingestion lease.
    pub const fn table(&self) -> &Table {
        &self.0
    }
}

/// Which part of a list a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many items at most: 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Where the part before ended.
    pub cursor: Option<Cursor>,
}

impl PageRequest {
    /// Reads the query parameters `limit` and `cursor`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `limit` is not a number from 1 to [`MAX_PAGE`].
    pub fn parse(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Error> {
        let limit = match limit {
            None => DEFAULT_PAGE,
            Some(text) => Some(text)
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|limit| (1..=MAX_PAGE).contains(limit))
                .ok_or_else(|| Error::invalid_at("?limit", "A number from 1 to 100."))?,
        };
        let cursor = cursor.map(Cursor::parse);
        Ok(Self { limit, cursor })
    }
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask for the next part with, if there is one.
    pub next: Option<Cursor>,
}

/// Where a list goes on: only a sort key, bound to the partition it came from by a digest, so that another tenant's
/// cursor is not one of ours. The partition itself is always the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Reads what a client sent.
    pub fn parse(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The opaque text for the client.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(pk: &str, sk: &str) -> Self {
        let bound = [Self::binding(pk, sk).as_slice(), sk.as_bytes()].concat();
        Self(BASE64URL_NOPAD.encode(&bound))
    }

    /// The sort key, if this cursor belongs to the partition and to the list of what begins with `prefix`. The digest keeps
    /// lists apart, but anybody can compute it: a key that no list ends at would be DynamoDB's to refuse, as our fault.
    fn sort_key(&self, pk: &str, prefix: &str) -> Result<String, Error> {
        let foreign = || Error::invalid_at("?cursor", "Not a cursor of this list.");
        let bytes = BASE64URL_NOPAD.decode(self.0.as_bytes()).map_err(|_| foreign())?;
        let (binding, sk) = bytes.split_at_checked(8).ok_or_else(foreign)?;
        let sk = std::str::from_utf8(sk).map_err(|_| foreign())?;
        let is_end = sk.starts_with(prefix) && (1..=MAX_SORT_KEY).contains(&sk.len());
        if is_end && binding == Self::binding(pk, sk) {
            Ok(sk.to_owned())
        } else {
            Err(foreign())
        }
    }

    fn binding(pk: &str, sk: &str) -> [u8; 8] {
        let digest = Sha256::new()
            .chain_update(pk)
            .chain_update([0])
            .chain_update(sk)
            .finalize();
        let mut binding = [0; 8];
        for (to, from) in binding.iter_mut().zip(digest) {
            *to = from;
        }
        binding
    }
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn key(pk: &str, sk: &str) -> Item {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

/// An item of `value`'s members under the key, with `ttl` where it is to be cleaned up.
fn item(pk: &str, sk: &str, value: &impl Serialize, ttl: Option<Timestamp>) -> Result<Item, Error> {
    let mut item: Item = serde_dynamo::to_item(value).map_err(Error::internal)?;
    item.extend(key(pk, sk));
    if let Some(ttl) = ttl {
        item.insert("ttl".to_owned(), number(ttl.as_unix()));
    }
    Ok(item)
}

/// Reads an item. One that we can't read is a defect, never an absent item.
fn read<T: DeserializeOwned>(item: Item) -> Result<T, Error> {
    serde_dynamo::from_item(item).map_err(Error::internal)
}

/// What a failed call is to the caller. Conditions are the callers' business and must be looked at before.
fn failed<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.code() {
        Some("ValidationException" | "AccessDeniedException" | "ResourceNotFoundException") => Error::internal(error),
        _ => Error::Unavailable(Box::new(error)),
    }
}

/// Whether a write's condition did not hold.
fn condition_failed<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.code() == Some("ConditionalCheckFailedException")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_partition() {
        let cursor = Cursor::new("TENANT#acme", "DOC#1");
        assert_eq!(cursor.sort_key("TENANT#acme", "DOC#").unwrap(), "DOC#1");
        assert!(cursor.sort_key("TENANT#acme-2", "DOC#").is_err());
        for bad in ["", "AAAA", "not base64!"] {
            assert!(Cursor::parse(bad).sort_key("TENANT#acme", "DOC#").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_that_somebody_made_ends_no_other_list() {
        let long = format!("DOC#{}", "x".repeat(MAX_SORT_KEY));
        for sk in ["SESSION#user#1", "", "DOC", &long] {
            let cursor = Cursor::new("TENANT#acme", sk);
            assert!(cursor.sort_key("TENANT#acme", "DOC#").is_err(), "{sk}");
        }
        assert!(Cursor::new("TENANTS", "").sort_key("TENANTS", "").is_err());
        assert!(Cursor::new("TENANTS", "acme").sort_key("TENANTS", "").is_ok());
    }

    #[test]
    fn a_page_has_1_to_100_items() {
        let limit = |text| PageRequest::parse(Some(text), None).map(|page| page.limit);
        assert_eq!(PageRequest::parse(None, None).unwrap().limit, 25);
        assert_eq!(limit("1").unwrap(), 1);
        assert_eq!(limit("100").unwrap(), 100);
        for bad in ["", "0", "101", "-1", "+1", " 1", "1.0", "ten", "99999999999999999999"] {
            assert!(matches!(limit(bad), Err(Error::Invalid { .. })), "{bad}");
        }
    }
}
