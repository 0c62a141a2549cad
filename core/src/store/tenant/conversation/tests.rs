//! What the gate to conversations promises, on an engine that knows DynamoDB's conditions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use ::time::OffsetDateTime;
use serde_json::{Value, json};

use super::*;
use crate::error::Code;
use crate::plan::EngineName;
use crate::store::fixture::{self, Engine};
use crate::time::Clock;
use crate::turn::TurnStatus;

const BEGIN: i64 = 1_767_225_600;

/// A table, and a clock that is set by hand.
struct World {
    engine: Engine,
    seconds: Arc<AtomicI64>,
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(),
            seconds: Arc::new(AtomicI64::new(BEGIN)),
        }
    }

    fn store(&self, tenant: &str, user: &str) -> TenantStore {
        let (seconds, instant) = (Arc::clone(&self.seconds), Instant::now());
        let clock = Clock::from_fn(move || {
            let now = OffsetDateTime::from_unix_timestamp(seconds.load(Ordering::SeqCst)).unwrap();
            (now, instant)
        });
        TenantStore::new(&self.engine.tenant_table(), &fixture::context(tenant, user), &clock)
    }

    fn alice(&self) -> TenantStore {
        self.store("acme", "alice")
    }

    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.seconds.load(Ordering::SeqCst))
    }

    async fn begin(&self, store: &TenantStore) -> SessionHandle {
        let session = Session::begin(self.now()).titled("How thick is the hull?");
        store.begin_session(&session).await.unwrap();
        session.handle
    }

    /// A conversation of `turns` turns, all of them complete.
    async fn conversation(&self, store: &TenantStore, turns: u64) -> SessionHandle {
        let handle = self.begin(store).await;
        for _ in 0..turns {
            let number = store.next_turn(&handle, self.now()).await.unwrap();
            let mut turn = turn(number, self.now());
            store.put_turn(&handle, &turn).await.unwrap();
            turn.status = TurnStatus::Complete;
            turn.text = format!("Answer {number}.");
            assert!(store.end_turn(&handle, &turn).await.unwrap());
        }
        handle
    }
}

fn turn(number: u64, now: Timestamp) -> Turn {
    Turn::begin(
        number,
        format!("Question {number}?"),
        EngineName::Verified,
        "default".to_owned(),
        now,
    )
}

fn page(limit: usize, cursor: Option<&Cursor>) -> PageRequest {
    PageRequest {
        limit,
        cursor: cursor.cloned(),
    }
}

fn numbers(turns: &[Turn]) -> Vec<u64> {
    turns.iter().map(|turn| turn.number).collect()
}

#[tokio::test]
async fn a_conversation_is_its_users_alone() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.conversation(&alice, 1).await;
    let others = [
        world.store("acme", "bob"),
        world.store("acme-2", "alice"),
        world.store("bulkhead-shared", "alice"),
    ];
    for other in &others {
        assert_eq!(other.session(&handle).await.unwrap(), None);
        assert!(other.sessions(&page(10, None)).await.unwrap().items.is_empty());
        assert!(other.turns(&handle, 20).await.unwrap().is_empty());
        assert!(
            other
                .turns_page(&handle, &page(10, None))
                .await
                .unwrap()
                .items
                .is_empty()
        );
        let missing = |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::NotFound)), "{outcome:?}");
        missing(other.next_turn(&handle, world.now()).await.map(drop));
        missing(other.put_turn(&handle, &turn(2, world.now())).await);
        missing(other.delete_session(&handle).await);
        assert!(!other.end_turn(&handle, &turn(1, world.now())).await.unwrap());
        assert!(!other.remember(&handle, None, Some("kb"), 1, world.now()).await.unwrap());
    }
    assert_eq!(alice.session(&handle).await.unwrap().unwrap().turns, 1);
    assert_eq!(alice.turns(&handle, 20).await.unwrap()[0].text, "Answer 1.");
    assert_eq!(world.engine.items().len(), 2, "others' calls left nothing behind");
}

#[tokio::test]
async fn what_is_written_is_what_was_reviewed() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.conversation(&alice, 1).await;
    assert!(
        alice
            .remember(&handle, None, Some("kb-1"), 1, world.now())
            .await
            .unwrap()
    );
    let user = fixture::context("acme", "alice").user().clone();
    let mut items = world.engine.items();
    items.sort_by_key(|item| item["sk"]["S"].as_str().unwrap().to_owned());
    for item in &mut items {
        let sk = item["sk"]["S"].as_str().unwrap();
        // Lists can end at every key.
        assert!(sk.len() <= crate::store::MAX_SORT_KEY, "{sk}");
        let sk = sk.replace(user.as_str(), "[user]").replace(handle.as_str(), "[handle]");
        item["sk"]["S"] = json!(sk);
        if item.get("handle").is_some() {
            item["handle"]["S"] = json!("[handle]");
        }
    }
    insta::assert_json_snapshot!("items", items);
}

#[tokio::test]
async fn turns_are_counted_once_each() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.begin(&alice).await;
    world.pass(5);
    let (a, b, c) = tokio::join!(
        alice.next_turn(&handle, world.now()),
        alice.next_turn(&handle, world.now()),
        alice.next_turn(&handle, world.now()),
    );
    let mut taken = [a.unwrap(), b.unwrap(), c.unwrap()];
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3]);
    let session = alice.session(&handle).await.unwrap().unwrap();
    assert_eq!(
        (session.turns, session.updated_at),
        (3, Timestamp::from_unix(BEGIN + 5))
    );
}

#[tokio::test]
async fn a_handle_is_begun_once() {
    let world = World::new();
    let alice = world.alice();
    let session = Session::begin(world.now());
    alice.begin_session(&session).await.unwrap();
    let error = alice.begin_session(&session).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn bedrocks_id_comes_and_goes() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.begin(&alice).await;
    let seen = async || {
        let session = alice.session(&handle).await.unwrap().unwrap();
        (session.knowledge_base_session, session.knowledge_base_turns)
    };
    let remember = async |begun_with, session, turn| {
        alice
            .remember(&handle, begun_with, session, turn, world.now())
            .await
            .unwrap()
    };
    assert_eq!(seen().await, (None, 0));
    assert!(remember(None, Some("kb-1"), 3).await);
    assert_eq!(seen().await, (Some("kb-1".to_owned()), 3));
    assert!(remember(Some("kb-1"), Some("kb-1"), 4).await);
    assert!(remember(Some("kb-1"), None, 0).await);
    assert_eq!(seen().await, (None, 0));
    // Another turn had begun with it; what had to be given up does not come back.
    assert!(!remember(Some("kb-1"), Some("kb-1"), 5).await);
    assert!(remember(None, Some("kb-2"), 6).await);
    for late in [Some("kb-1"), None] {
        assert!(!remember(late, Some("kb-3"), 7).await);
    }
    assert_eq!(seen().await, (Some("kb-2".to_owned()), 6));
}

#[tokio::test]
async fn lists_come_in_parts_and_in_order() {
    let world = World::new();
    let alice = world.alice();
    let first = world.conversation(&alice, 12).await;
    let second = world.begin(&alice).await;
    let third = world.begin(&alice).await;
    world.conversation(&world.store("acme", "bob"), 1).await;

    let part = alice.sessions(&page(2, None)).await.unwrap();
    let handles = |sessions: Vec<Session>| sessions.into_iter().map(|it| it.handle).collect::<Vec<_>>();
    assert_eq!(handles(part.items), [third, second]);
    let rest = alice.sessions(&page(2, part.next.as_ref())).await.unwrap();
    assert_eq!((handles(rest.items), rest.next), (vec![first.clone()], None));

    let part = alice.turns_page(&first, &page(10, None)).await.unwrap();
    assert_eq!(numbers(&part.items), (1..=10).collect::<Vec<_>>());
    let rest = alice.turns_page(&first, &page(10, part.next.as_ref())).await.unwrap();
    assert_eq!((numbers(&rest.items), rest.next), (vec![11, 12], None));

    assert_eq!(numbers(&alice.turns(&first, 5).await.unwrap()), [8, 9, 10, 11, 12]);
    assert_eq!(alice.turns(&first, 20).await.unwrap().len(), 12);
    assert!(alice.turns(&first, 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cursor_is_good_for_the_list_that_it_is_of_alone() {
    let world = World::new();
    let (alice, bob) = (world.alice(), world.store("acme", "bob"));
    let handle = world.conversation(&alice, 2).await;
    let other = world.conversation(&alice, 2).await;
    let bobs = world.conversation(&bob, 2).await;
    world.begin(&bob).await;
    let sessions = alice.sessions(&page(1, None)).await.unwrap().next.unwrap();
    let turns = alice.turns_page(&handle, &page(1, None)).await.unwrap().next.unwrap();
    let bobs_sessions = bob.sessions(&page(1, None)).await.unwrap().next.unwrap();
    let bobs_turns = bob.turns_page(&bobs, &page(1, None)).await.unwrap().next.unwrap();

    assert_eq!(alice.sessions(&page(1, Some(&sessions))).await.unwrap().items.len(), 1);
    for foreign in [&turns, &bobs_sessions, &bobs_turns] {
        let outcome = alice.sessions(&page(1, Some(foreign))).await;
        assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    }
    for foreign in [&sessions, &bobs_sessions, &bobs_turns] {
        let outcome = alice.turns_page(&handle, &page(1, Some(foreign))).await;
        assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    }
    // One conversation's is not another's, although the user is the same; nor is it the same user's of another tenant.
    let outcome = alice.turns_page(&other, &page(1, Some(&turns))).await;
    assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    let elsewhere = world.store("acme-2", "alice");
    for foreign in [&sessions, &turns] {
        assert!(elsewhere.sessions(&page(1, Some(foreign))).await.is_err());
        assert!(elsewhere.turns_page(&handle, &page(1, Some(foreign))).await.is_err());
    }
}

#[tokio::test]
async fn an_expired_conversation_is_not_there_although_nothing_has_cleaned_it_up() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.conversation(&alice, 1).await;
    world.pass(SESSION_LIFETIME.as_secs().cast_signed() - 1);
    let late = world.begin(&alice).await;
    assert!(alice.session(&handle).await.unwrap().is_some());
    assert_eq!(alice.sessions(&page(10, None)).await.unwrap().items.len(), 2);
    world.pass(1);
    assert_eq!(alice.session(&handle).await.unwrap(), None);
    let listed = alice.sessions(&page(1, None)).await.unwrap();
    assert_eq!((listed.items[0].handle.clone(), listed.next), (late, None));
    assert!(matches!(
        alice.next_turn(&handle, world.now()).await,
        Err(Error::NotFound)
    ));
    assert!(!alice.remember(&handle, None, Some("kb"), 1, world.now()).await.unwrap());
    assert!(matches!(
        alice.put_turn(&handle, &turn(2, world.now())).await,
        Err(Error::NotFound)
    ));
    assert_eq!(world.engine.sort_keys().len(), 3, "the turn that came too late is gone");
    // Its owner is told that it is not there; what was left of it goes all the same.
    assert!(matches!(alice.delete_session(&handle).await, Err(Error::NotFound)));
    assert_eq!(world.engine.sort_keys().len(), 1);
}

#[tokio::test]
async fn a_turn_that_nobody_ended_has_failed() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.begin(&alice).await;
    let number = alice.next_turn(&handle, world.now()).await.unwrap();
    alice.put_turn(&handle, &turn(number, world.now())).await.unwrap();
    world.pass(129);
    assert_eq!(alice.turns(&handle, 1).await.unwrap()[0].status, TurnStatus::Answering);
    world.pass(1);
    let seen = &alice.turns_page(&handle, &page(1, None)).await.unwrap().items[0];
    assert_eq!((seen.status, seen.code), (TurnStatus::Failed, Some(Code::Timeout)));
}

#[tokio::test]
async fn a_deleted_conversation_leaves_nothing_and_does_not_come_back() {
    let world = World::new();
    let alice = world.alice();
    let kept = world.conversation(&alice, 1).await;
    // More turns than one write takes.
    let handle = world.conversation(&alice, 30).await;
    let before = alice.session(&kept).await.unwrap();
    alice.delete_session(&handle).await.unwrap();
    assert_eq!(world.engine.items().len(), 2);
    assert_eq!(alice.session(&kept).await.unwrap(), before);

    assert!(matches!(alice.delete_session(&handle).await, Err(Error::NotFound)));
    assert!(matches!(
        alice.next_turn(&handle, world.now()).await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        alice.put_turn(&handle, &turn(31, world.now())).await,
        Err(Error::NotFound)
    ));
    assert!(!alice.end_turn(&handle, &turn(30, world.now())).await.unwrap());
    assert!(
        !alice
            .remember(&handle, None, Some("kb"), 30, world.now())
            .await
            .unwrap()
    );
    assert_eq!(world.engine.items().len(), 2);
}

#[tokio::test]
async fn a_deletion_that_was_cut_off_has_ended_the_conversation_and_can_be_repeated() {
    let world = World::new();
    let alice = world.alice();
    let handle = world.conversation(&alice, 3).await;
    // Ended, and not a turn removed.
    let ended = world
        .engine
        .items()
        .into_iter()
        .find(|item| item.get("handle").is_some());
    let mut ended: Value = ended.unwrap();
    ended["ttl"]["N"] = json!(BEGIN.to_string());
    ended["expires_at"]["S"] = json!(world.now().to_string());
    world
        .engine
        .before("GetItem", move |database| fixture::put(database, ended));
    assert_eq!(alice.session(&handle).await.unwrap(), None);
    assert!(matches!(alice.delete_session(&handle).await, Err(Error::NotFound)));
    assert!(world.engine.items().is_empty());
}

#[tokio::test]
async fn a_turn_that_is_written_while_its_conversation_is_deleted_does_not_stay_behind() {
    // The deletion comes between the turn's number and the turn: whoever writes it sees that the conversation is gone.
    let world = World::new();
    let alice = world.alice();
    let handle = world.begin(&alice).await;
    let number = alice.next_turn(&handle, world.now()).await.unwrap();
    alice.delete_session(&handle).await.unwrap();
    let outcome = alice.put_turn(&handle, &turn(number, world.now())).await;
    assert!(matches!(outcome, Err(Error::NotFound)), "{outcome:?}");
    assert!(world.engine.items().is_empty());

    // The turn comes between the deletion's look at the turns and the removal of the conversation: it looks again.
    let handle = world.conversation(&alice, 1).await;
    let mut late = world
        .engine
        .items()
        .into_iter()
        .find(|item| item.get("handle").is_none())
        .unwrap();
    late["sk"]["S"] = json!(late["sk"]["S"].as_str().unwrap().replace("00000001", "00000002"));
    world
        .engine
        .before("BatchWriteItem", move |database| fixture::put(database, late));
    alice.delete_session(&handle).await.unwrap();
    assert!(world.engine.items().is_empty());
    // The conversation is ended before its turns are looked for.
    let operations = world.engine.operations();
    let last = |name: &str| operations.iter().rposition(|operation| operation == name).unwrap();
    assert!(last("UpdateItem") < last("Query"), "{operations:?}");
}
