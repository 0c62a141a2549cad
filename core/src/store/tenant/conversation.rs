//! A user's conversations and their turns. Their keys begin with the user's id, so that a colleague's is a missing key.
//!
//! Deleting one is expiring it at once and not waiting for the clean-up: from then on it is not there for anybody, and
//! whoever was about to write another turn of it finds that out.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{DeleteRequest, ReturnValue, WriteRequest};

use super::{Filter, Item, List, TenantStore};
use crate::error::Error;
use crate::session::{SESSION_LIFETIME, Session, SessionHandle};
use crate::store::{Cursor, Page, PageRequest, condition_failed, failed, item, key, number, read, text};
use crate::time::Timestamp;
use crate::turn::Turn;

/// The most items that one BatchWriteItem takes
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html>).
const MAX_BATCH: usize = 25;
/// How often items that DynamoDB left unwritten are sent, in all.
const ATTEMPTS: usize = 3;

impl TenantStore {
    /// A conversation of the caller's, unless it has expired.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn session(&self, handle: &SessionHandle) -> Result<Option<Session>, Error> {
        let session: Option<Session> = self.get(&self.session_key(handle)).await?.map(read).transpose()?;
        Ok(session.filter(|session| session.expires_at > self.clock.now()))
    }

    /// A part of the caller's conversations, those that began last first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another list, [`Error::Unavailable`].
    pub async fn sessions(&self, page: &PageRequest) -> Result<Page<Session>, Error> {
        let list = List {
            prefix: &format!("SESSION#{}#", self.user),
            newest_first: true,
            filter: Some(Filter {
                name: "ttl",
                comparison: ">",
                value: number(self.clock.now().as_unix()),
            }),
        };
        self.list(list, page.limit, page.cursor.as_ref()).await
    }

    /// Writes a new conversation of the caller's.
    ///
    /// # Errors
    /// [`Error::Internal`] if there is one of its handle, [`Error::Unavailable`].
    pub async fn begin_session(&self, session: &Session) -> Result<(), Error> {
        let sk = self.session_key(&session.handle);
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item(&self.pk, &sk, session, Some(session.expires_at))?))
            .condition_expression("attribute_not_exists(pk)");
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if condition_failed(&error) => Err(Error::internal("a new handle that is taken")),
            Err(error) => Err(failed(error)),
        }
    }

    /// The number of a turn that begins now: one more than that of any other, whoever else asks at the same time.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the conversation is gone, [`Error::Unavailable`].
    pub async fn next_turn(&self, handle: &SessionHandle, now: Timestamp) -> Result<u64, Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&self.pk, &self.session_key(handle))))
            .update_expression("SET updated_at = :time ADD turns :one")
            .condition_expression("attribute_exists(pk) AND #ttl > :now")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":time", text(now.to_string()))
            .expression_attribute_values(":now", number(now.as_unix()))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::UpdatedNew);
        match call.send().await {
            Ok(answer) => answer
                .attributes
                .as_ref()
                .and_then(|attributes| attributes.get("turns")?.as_n().ok()?.parse().ok())
                .ok_or(Error::internal("a counted turn without its number")),
            Err(error) if condition_failed(&error) => Err(Error::NotFound),
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes a turn that begins, if the conversation is there. It is kept no longer than a conversation.
    ///
    /// Two items without a transaction: the turn is written and then the conversation looked at, while
    /// [`Self::delete_session`] ends the conversation and then looks for its turns. So one of the two sees the other, and
    /// no turn stays behind.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the conversation is gone, [`Error::Unavailable`].
    pub async fn put_turn(&self, handle: &SessionHandle, turn: &Turn) -> Result<(), Error> {
        let sk = self.turn_key(handle, turn.number);
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(self.turn_item(&sk, turn)?));
        call.send().await.map_err(failed)?;
        if self.session(handle).await?.is_none() {
            self.remove(vec![key(&self.pk, &sk)]).await?;
            return Err(Error::NotFound);
        }
        Ok(())
    }

    /// Writes what became of a turn; false if it is gone, with its conversation: that is not brought back.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn end_turn(&self, handle: &SessionHandle, turn: &Turn) -> Result<bool, Error> {
        let sk = self.turn_key(handle, turn.number);
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(self.turn_item(&sk, turn)?))
            .condition_expression("attribute_exists(pk)");
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if condition_failed(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// The last turns of a conversation that [`Self::session`] knows, at most `last` and at most 100, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn turns(&self, handle: &SessionHandle, last: usize) -> Result<Vec<Turn>, Error> {
        if last == 0 {
            return Ok(Vec::new());
        }
        let mut turns = self.list_turns(handle, true, last, None).await?.items;
        turns.reverse();
        Ok(turns)
    }

    /// A part of the turns of a conversation that [`Self::session`] knows, oldest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another list, [`Error::Unavailable`].
    pub async fn turns_page(&self, handle: &SessionHandle, page: &PageRequest) -> Result<Page<Turn>, Error> {
        self.list_turns(handle, false, page.limit, page.cursor.as_ref()).await
    }

    /// Notes under which id Bedrock knows a conversation now, or that it must not go on with any, and up to which turn that
    /// session has seen it. It counts only if the id is still the one that the turn began with: of two turns at the same
    /// time, one must not bring back a session that the other had to give up. False if it did not count, or if the
    /// conversation is gone: it is not brought back.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remember(
        &self,
        handle: &SessionHandle,
        begun_with: Option<&str>,
        knowledge_base_session: Option<&str>,
        seen: u64,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let is_unchanged = match begun_with {
            Some(_) => "knowledge_base_session = :begun_with",
            None => "attribute_not_exists(knowledge_base_session)",
        };
        let update = match knowledge_base_session {
            Some(_) => "SET knowledge_base_session = :session, knowledge_base_turns = :seen, updated_at = :time",
            None => "SET knowledge_base_turns = :seen, updated_at = :time REMOVE knowledge_base_session",
        };
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let mut call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&self.pk, &self.session_key(handle))))
            .update_expression(update)
            .condition_expression(format!("attribute_exists(pk) AND #ttl > :now AND {is_unchanged}"))
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":time", text(now.to_string()))
            .expression_attribute_values(":now", number(now.as_unix()))
            .expression_attribute_values(":seen", number(seen));
        // DynamoDB refuses a value that no expression uses.
        for (name, value) in [(":begun_with", begun_with), (":session", knowledge_base_session)] {
            if let Some(value) = value {
                call = call.expression_attribute_values(name, text(value));
            }
        }
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) if condition_failed(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Deletes a conversation of the caller's: ends it, removes its turns, then the record of it. A call that was cut off
    /// has ended it at least; the next one removes what was left, although to its caller there is nothing there any more.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of that handle or it has expired, [`Error::Unavailable`].
    pub async fn delete_session(&self, handle: &SessionHandle) -> Result<(), Error> {
        let now = self.clock.now();
        let sk = self.session_key(handle);
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key(&self.pk, &sk)))
            .update_expression("SET expires_at = :time, #ttl = :now")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":time", text(now.to_string()))
            .expression_attribute_values(":now", number(now.as_unix()))
            .return_values(ReturnValue::AllOld);
        let ended: Session = match call.send().await {
            Ok(answer) => read(answer.attributes.unwrap_or_default())?,
            Err(error) if condition_failed(&error) => return Err(Error::NotFound),
            Err(error) => return Err(failed(error)),
        };
        loop {
            let keys = self.turn_keys(handle).await?;
            if keys.is_empty() {
                break;
            }
            self.remove(keys).await?;
        }
        self.remove(vec![key(&self.pk, &sk)]).await?;
        if ended.expires_at > now {
            Ok(())
        } else {
            Err(Error::NotFound)
        }
    }

    async fn list_turns(
        &self,
        handle: &SessionHandle,
        newest_first: bool,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Turn>, Error> {
        let list = List {
            prefix: &self.turn_prefix(handle),
            newest_first,
            filter: None,
        };
        let mut page: Page<Turn> = self.list(list, limit, cursor).await?;
        let now = self.clock.now();
        page.items = page.items.into_iter().map(|turn| turn.seen_at(now)).collect();
        Ok(page)
    }

    /// The keys of some of a conversation's turns; none if it has none.
    async fn turn_keys(&self, handle: &SessionHandle) -> Result<Vec<Item>, Error> {
        #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
        let call = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", text(&self.pk))
            .expression_attribute_values(":prefix", text(self.turn_prefix(handle)))
            .projection_expression("pk, sk");
        Ok(call.send().await.map_err(failed)?.items.unwrap_or_default())
    }

    /// Removes items, whatever is in them; those that are not there count as removed.
    async fn remove(&self, keys: Vec<Item>) -> Result<(), Error> {
        for chunk in keys.chunks(MAX_BATCH) {
            let mut left = Vec::with_capacity(chunk.len());
            for key in chunk {
                let request = DeleteRequest::builder()
                    .set_key(Some(key.clone()))
                    .build()
                    .map_err(Error::internal)?;
                left.push(WriteRequest::builder().delete_request(request).build());
            }
            for _ in 0..ATTEMPTS {
                #[expect(clippy::disallowed_methods, reason = "the gate to a tenant's items")]
                let call = self
                    .table
                    .client
                    .batch_write_item()
                    .set_request_items(Some(HashMap::from([(self.table.name.clone(), left)])));
                let answer = call.send().await.map_err(failed)?;
                left = answer
                    .unprocessed_items
                    .unwrap_or_default()
                    .into_values()
                    .flatten()
                    .collect();
                if left.is_empty() {
                    break;
                }
            }
            if !left.is_empty() {
                return Err(Error::Unavailable("the table left items unwritten".into()));
            }
        }
        Ok(())
    }

    /// A turn's item. It may outlive its conversation by as much as it was begun later, but nobody finds it then.
    fn turn_item(&self, sk: &str, turn: &Turn) -> Result<Item, Error> {
        item(&self.pk, sk, turn, Some(turn.created_at.plus(SESSION_LIFETIME)))
    }

    fn session_key(&self, handle: &SessionHandle) -> String {
        format!("SESSION#{}#{handle}", self.user)
    }

    fn turn_prefix(&self, handle: &SessionHandle) -> String {
        format!("TURN#{}#{handle}#", self.user)
    }

    /// Turns sort by their numbers: nobody has 100 million in 30 days.
    fn turn_key(&self, handle: &SessionHandle, number: u64) -> String {
        format!("{}{number:08}", self.turn_prefix(handle))
    }
}

#[cfg(test)]
mod tests;
