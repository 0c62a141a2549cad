//! What is to be done: the configuration as it is, what was kept of the one before, and what is wished, make a list of
//! steps. Nothing is called here.
//!
//! Four rules hold it together:
//!
//! * **Ours is what writes to our log group.** Whoever changed something else about it changed ours; and when the stack
//!   goes, its log group does, so nothing that writes there can stay.
//! * **What was before is kept before ours is set, and only if what is found is not ours.** So it is safe to stop
//!   between any two steps and to begin again: the events of a custom resource are delivered more than once, also after
//!   a time-out.
//! * **What can't be restored later is not replaced now.** It is tried before.
//! * **A deletion succeeds wherever a repetition could not do better**, and says what it left. A stack that can't be
//!   deleted helps nobody.
//!
//! A record is its stack's. The parameter has the same name for every stack of a name, and one that a former stack left
//! says nothing of what was configured before this one, unless that stack's own configuration is still there as well.

use crate::logging::Logging;
use crate::record::{Kept, Record};

/// What Bedrock has configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Ours, as it was set or changed since.
    Ours,
    /// Somebody else's, or nothing.
    Others(Option<Logging>),
}

impl Present {
    /// Whose it is, seen from the stack that has this log group.
    pub(crate) fn of(present: Option<Logging>, log_group_name: &str) -> Self {
        match present {
            Some(logging) if logging.writes_to(log_group_name) => Self::Ours,
            other => Self::Others(other),
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Configures what is configured already. It changes nothing, and shows before anything is changed that it could be
    /// restored: where Bedrock writes with a role of its own, this function must be allowed to pass that role.
    Rehearse(Logging),
    /// Writes the parameter, if there is none.
    Keep(Record),
    /// Writes the parameter over another stack's.
    Replace(Record),
    /// Configures ours.
    Configure,
    /// Configures what was before.
    Restore(Logging),
    /// Turns logging off.
    TurnOff,
    /// Deletes the parameter.
    Forget,
}

/// What to do, and what to tell besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// In this order; none of the later ones if one fails.
    pub(crate) steps: Vec<Step>,
    /// What whoever deploys should know.
    pub(crate) note: Option<&'static str>,
}

impl Decision {
    fn new(steps: Vec<Step>) -> Self {
        Self { steps, note: None }
    }

    fn noting(self, note: &'static str) -> Self {
        Self {
            note: Some(note),
            ..self
        }
    }
}

/// What was before is not known: ours was there and the parameter was not, or held something else.
pub(crate) const UNKNOWN_BEFORE: &str =
    "What was configured before is not known. When this resource goes, model invocation logging is turned off.";
/// Somebody else's configuration was found in place of ours, and left.
pub(crate) const LEFT_ALONE: &str =
    "Model invocation logging was changed by somebody else since. Their configuration was left as it is.";
/// As [`LEFT_ALONE`], where there is something to go back to: two stacks may have been deleted in the wrong order.
pub(crate) const LEFT_ALONE_AND_KEPT: &str = "Model invocation logging was changed by somebody else since. Their \
    configuration was left as it is; what was configured before this stack stays in the stack's parameter for it.";
/// Somebody else's configuration was replaced, and is kept.
pub(crate) const REPLACED: &str =
    "Model invocation logging had been changed by somebody else since. Their configuration is kept, to be restored.";
/// Nothing is configured, though something was before. Somebody turned it off, or Bedrock did not take it back.
pub(crate) const STAYS_KEPT: &str =
    "Model invocation logging is off. What was configured before this stack stays in the stack's parameter for it.";
/// Ours was turned off because what was before is not known.
pub(crate) const TURNED_OFF: &str = "What was configured before is not known. Model invocation logging was turned off.";

/// The resource is to be, for `stack`: created, created again after an interruption, or updated.
///
/// # Errors
/// The parameter holds something that is not ours to overwrite, and nothing has been changed yet. What to tell.
pub(crate) fn make(present: Present, kept: Kept, stack: &str) -> Result<Decision, &'static str> {
    let record = |before| Record {
        stack: stack.to_owned(),
        before,
    };
    let configure = |first| Decision::new(vec![first, Step::Configure]);
    let replace = |before: Option<Logging>, first| {
        let rehearsal = before.map(Step::Rehearse);
        Decision::new(rehearsal.into_iter().chain([first, Step::Configure]).collect())
    };
    Ok(match (present, kept) {
        // Created before, and changed by others since, perhaps after ours was turned off: theirs is what was before now.
        (Present::Others(Some(found)), Kept::Record(own))
            if own.stack == stack && own.before.as_ref() != Some(&found) =>
        {
            replace(Some(found.clone()), Step::Replace(record(Some(found)))).noting(REPLACED)
        }
        // Created before, wholly or in part. What was kept first was before.
        (_, Kept::Record(Record { stack: owner, .. })) if owner == stack => Decision::new(vec![Step::Configure]),
        (Present::Others(before), Kept::Nothing) => replace(before.clone(), Step::Keep(record(before))),
        (Present::Others(before), Kept::Record(_)) => replace(before.clone(), Step::Replace(record(before))),
        // A former stack of this name was not undone. What was before it is what was before us.
        (Present::Ours, Kept::Record(former)) => configure(Step::Replace(record(former.before))),
        (Present::Ours, Kept::Nothing) => configure(Step::Keep(record(None))).noting(UNKNOWN_BEFORE),
        (Present::Ours, Kept::Unreadable) => Decision::new(vec![Step::Configure]).noting(UNKNOWN_BEFORE),
        (Present::Others(_), Kept::Unreadable) => {
            return Err("The parameter for what was configured before holds something else. Delete it first.");
        }
    })
}

/// The resource of `stack` is to go.
pub(crate) fn unmake(present: Present, kept: Kept, stack: &str) -> Decision {
    match (present, kept) {
        (Present::Ours, Kept::Record(record)) => {
            let back = record.before.map_or(Step::TurnOff, Step::Restore);
            Decision::new(vec![back, Step::Forget])
        }
        (Present::Ours, Kept::Nothing | Kept::Unreadable) => Decision::new(vec![Step::TurnOff]).noting(TURNED_OFF),
        (Present::Others(present), Kept::Record(record)) if record.stack == stack => match present {
            // Restored by another delivery of this event, or never changed.
            present if present == record.before => Decision::new(vec![Step::Forget]),
            // What was kept is the only copy.
            Some(_) if record.before.is_some() => Decision::new(Vec::new()).noting(LEFT_ALONE_AND_KEPT),
            Some(_) => Decision::new(vec![Step::Forget]).noting(LEFT_ALONE),
            // Another delivery of this event may have tried to restore it in vain.
            None => Decision::new(Vec::new()).noting(STAYS_KEPT),
        },
        // Never created, or gone already.
        (Present::Others(_), Kept::Nothing | Kept::Record(_) | Kept::Unreadable) => Decision::new(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Properties;

    const GROUP: &str = "/bulkhead/stack/model-invocations";
    const STACK: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/stack/1";
    const FORMER: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/stack/0";

    fn ours() -> Logging {
        Logging::ours(&Properties {
            log_group_name: GROUP.to_owned(),
            role_arn: "arn:aws:iam::123456789012:role/bedrock".to_owned(),
        })
    }

    fn theirs(bucket: &str) -> Logging {
        serde_json::from_value(json!({"s3Config": {"bucketName": bucket}})).unwrap()
    }

    fn record(stack: &str, before: Option<Logging>) -> Record {
        Record {
            stack: stack.to_owned(),
            before,
        }
    }

    /// The account, as far as a decision sees and changes it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Account {
        present: Option<Logging>,
        kept: Kept,
    }

    impl Account {
        fn new(present: Option<Logging>) -> Self {
            Self {
                present,
                kept: Kept::Nothing,
            }
        }

        fn take(&mut self, step: &Step) {
            match step.clone() {
                Step::Keep(_) if self.kept != Kept::Nothing => {}
                Step::Keep(record) | Step::Replace(record) => self.kept = Kept::Record(record),
                Step::Configure => self.present = Some(ours()),
                Step::Rehearse(before) => assert_eq!(self.present, Some(before)),
                Step::Restore(before) => self.present = Some(before),
                Step::TurnOff => self.present = None,
                Step::Forget => self.kept = Kept::Nothing,
            }
        }

        fn present(&self) -> Present {
            Present::of(self.present.clone(), GROUP)
        }

        /// As far as `steps` of them go.
        fn make(&mut self, steps: usize) {
            let decision = make(self.present(), self.kept.clone(), STACK).unwrap();
            decision.steps.iter().take(steps).for_each(|step| self.take(step));
        }

        fn unmake(&mut self, steps: usize) -> Option<&'static str> {
            let decision = unmake(self.present(), self.kept.clone(), STACK);
            decision.steps.iter().take(steps).for_each(|step| self.take(step));
            decision.note
        }
    }

    const ALL: usize = usize::MAX;

    #[test]
    fn what_was_before_comes_back_wherever_either_way_was_interrupted_and_however_often() {
        for before in [None, Some(theirs("audit"))] {
            for (first, second, third) in [0, 1, 2, 3, ALL]
                .into_iter()
                .flat_map(|first| [0, 1, 2, ALL].map(|second| (first, second)))
                .flat_map(|(first, second)| [0, 1, ALL].map(|third| (first, second, third)))
            {
                let mut account = Account::new(before.clone());
                account.make(first);
                account.make(second);
                account.make(ALL);
                assert_eq!(account.present, Some(ours()));
                // An update, and the event of the creation once more.
                account.make(ALL);
                account.unmake(third);
                assert_eq!(account.unmake(ALL), None, "{first} {second} {third}");
                account.unmake(ALL);
                assert_eq!(account, Account::new(before.clone()), "{first} {second} {third}");
            }
        }
    }

    #[test]
    fn a_creation_that_failed_anywhere_is_undone_by_its_deletion() {
        for before in [None, Some(theirs("audit"))] {
            for steps in 0..=3 {
                let mut account = Account::new(before.clone());
                account.make(steps);
                assert_eq!(account.unmake(ALL), None);
                assert_eq!(account, Account::new(before.clone()), "{steps}");
            }
        }
    }

    #[test]
    fn what_somebody_set_meanwhile_stays_and_is_told() {
        let mut account = Account::new(None);
        account.make(ALL);
        account.present = Some(theirs("theirs"));
        assert_eq!(account.unmake(ALL), Some(LEFT_ALONE));
        assert_eq!(account, Account::new(Some(theirs("theirs"))));

        // And what was before them is not lost.
        let mut account = Account::new(Some(theirs("audit")));
        account.make(ALL);
        account.present = Some(theirs("theirs"));
        for _ in 0..2 {
            assert_eq!(account.unmake(ALL), Some(LEFT_ALONE_AND_KEPT));
            assert_eq!(account.present, Some(theirs("theirs")));
            assert_eq!(account.kept, Kept::Record(record(STACK, Some(theirs("audit")))));
        }
    }

    #[test]
    fn what_was_set_after_ours_had_gone_is_what_was_before_ours_the_second_time() {
        let mut account = Account::new(Some(theirs("audit")));
        account.make(ALL);
        // Bedrock did not take it back, so it stays kept; then somebody configures something else.
        account.present = None;
        account.unmake(ALL);
        account.present = Some(theirs("newer"));
        for steps in 0..=3 {
            let mut account = account.clone();
            account.make(steps);
            account.make(ALL);
            account.unmake(ALL);
            assert_eq!(account, Account::new(Some(theirs("newer"))), "{steps}");
        }
    }

    #[test]
    fn what_can_not_be_restored_stays_where_it_can_be_read() {
        let mut account = Account::new(Some(theirs("audit")));
        account.make(ALL);
        // Bedrock refused what was before, and nobody heard the answer.
        account.present = None;
        for _ in 0..2 {
            assert_eq!(account.unmake(ALL), Some(STAYS_KEPT));
            assert_eq!(account.kept, Kept::Record(record(STACK, Some(theirs("audit")))));
        }
    }

    #[test]
    fn an_update_configures_ours_again_and_keeps_what_it_replaces() {
        let mut account = Account::new(Some(theirs("audit")));
        account.make(ALL);
        account.make(ALL);
        assert_eq!(account.kept, Kept::Record(record(STACK, Some(theirs("audit")))));
        account.present = Some(theirs("theirs"));
        let decision = make(account.present(), account.kept.clone(), STACK).unwrap();
        assert_eq!(decision.note, Some(REPLACED));
        account.make(ALL);
        assert_eq!(account.present, Some(ours()));
        assert_eq!(account.kept, Kept::Record(record(STACK, Some(theirs("theirs")))));
    }

    #[test]
    fn a_former_stacks_record_counts_only_while_its_configuration_is_there() {
        let kept = Kept::Record(record(FORMER, Some(theirs("audit"))));
        let mut account = Account {
            present: Some(theirs("newer")),
            kept: kept.clone(),
        };
        account.make(ALL);
        assert_eq!(account.kept, Kept::Record(record(STACK, Some(theirs("newer")))));

        let mut account = Account {
            present: Some(ours()),
            kept: kept.clone(),
        };
        account.make(ALL);
        assert_eq!(account.kept, Kept::Record(record(STACK, Some(theirs("audit")))));
        account.unmake(ALL);
        assert_eq!(account, Account::new(Some(theirs("audit"))));

        // It is not ours to delete.
        let left = Account { present: None, kept };
        let mut account = left.clone();
        assert_eq!(account.unmake(ALL), None);
        assert_eq!(account, left);
    }

    #[test]
    fn what_is_not_known_is_never_guessed() {
        // Somebody deleted the parameter: ours can't have been before itself.
        let mut account = Account::new(Some(ours()));
        let decision = make(account.present(), account.kept.clone(), STACK).unwrap();
        assert_eq!(decision.note, Some(UNKNOWN_BEFORE));
        account.make(ALL);
        assert_eq!(account.kept, Kept::Record(record(STACK, None)));
        account.unmake(ALL);
        assert_eq!(account, Account::new(None));

        let unreadable = |present| Account {
            present,
            kept: Kept::Unreadable,
        };
        for (before, left, note) in [
            (Some(ours()), None, Some(TURNED_OFF)),
            (Some(theirs("audit")), Some(theirs("audit")), None),
        ] {
            let mut account = unreadable(before);
            assert_eq!(account.unmake(ALL), note);
            assert_eq!(account, unreadable(left));
        }
        assert!(make(Present::Others(None), Kept::Unreadable, STACK).is_err());
        let update = make(Present::Ours, Kept::Unreadable, STACK).unwrap();
        assert_eq!(update, Decision::new(vec![Step::Configure]).noting(UNKNOWN_BEFORE));
    }

    #[test]
    fn a_changed_configuration_that_writes_to_our_log_group_is_ours() {
        let mut changed = serde_json::to_value(ours()).unwrap();
        changed["s3Config"] = json!({"bucketName": "theirs"});
        let changed = serde_json::from_value(changed).unwrap();
        assert_eq!(Present::of(Some(changed), GROUP), Present::Ours);
        assert_eq!(Present::of(None, GROUP), Present::Others(None));
    }
}
