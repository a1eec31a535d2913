use super::*;
use proptest::prelude::*;

fn key(name: &str) -> ResourceKey {
    name.parse().unwrap()
}

fn sample() -> LossReport {
    let mut report = LossReport::new();
    report.offer(&key("Condition/a"));
    report.offer(&key("Patient/p"));
    report.withhold(&key("Condition/b"), "label");
    report.leave(&key("Group/g"), "shared");
    report.note_unresolved(&key("Condition/a"), "asserter.reference", "not_held");
    report.note_still_mentioned(&key("Condition/a"));
    report
}

#[test]
fn held_and_offered_add_up_or_are_refused() {
    let mut report = sample();
    assert_eq!(report.verify_held(), Ok(()));
    assert_eq!(report.verify_filed(), Err(LossError::Offered));
    report.file(&key("Condition/a"));
    report.quarantine(&key("Patient/p"), "malformed");
    assert_eq!(report.verify_filed(), Ok(()));
    assert_eq!(
        report.counts(),
        LossCounts { held: 4, offered: 2, withheld: 1, not_movable: 1, filed: 1, quarantined: 1 }
    );
    report.file(&key("Condition/a"));
    assert_eq!(report.verify_filed(), Err(LossError::Offered));
    let mut report = sample();
    report.counts.held += 1;
    assert_eq!(report.verify_held(), Err(LossError::Held));
    let mut swapped = sample();
    swapped.file(&key("Condition/a"));
    swapped.file(&key("Condition/a"));
    assert_eq!(swapped.verify_filed(), Err(LossError::Offered), "the types have to add up too");
}

#[test]
fn the_json_names_are_stable() {
    assert_eq!(
        serde_json::to_string(&sample()).unwrap(),
        concat!(
            r#"{"format":"waybill-loss-report/1","held":4,"offered":2,"withheld":1,"not_movable":1,"filed":0,"#,
            r#""quarantined":0,"by_type":{"Condition":{"held":2,"offered":1,"withheld":1,"not_movable":0,"filed":0,"#,
            r#""quarantined":0},"Group":{"held":1,"offered":0,"withheld":0,"not_movable":1,"filed":0,"quarantined":0},"#,
            r#""Patient":{"held":1,"offered":1,"withheld":0,"not_movable":0,"filed":0,"quarantined":0}},"#,
            r#""reasons":{"withheld":{"label":1},"not_movable":{"shared":1}},"#,
            r#""items":[{"type":"Condition","id":"b","outcome":"withheld","reason":"label"},"#,
            r#"{"type":"Group","id":"g","outcome":"not_movable","reason":"shared"}],"items_total":2,"#,
            r#""unresolved":[{"from":"Condition/a","path":"asserter.reference","reason":"not_held"}],"#,
            r#""unresolved_total":1,"still_mentioned":["Condition/a"],"still_mentioned_total":1}"#
        )
    );
}

#[test]
fn lists_are_capped_and_totals_are_exact() {
    let mut report = LossReport::new();
    for number in 0..MAX_LISTED_ITEMS + 5 {
        report.withhold(&key(&format!("Condition/{number}")), &format!("reason-{}", number % 100));
        report.note_unresolved(&key("Condition/0"), &"é".repeat(200), "not_held");
        report.note_still_mentioned(&key("Condition/0"));
    }
    let total = MAX_LISTED_ITEMS as u64 + 5;
    assert_eq!((report.items().0.len(), report.items().1), (MAX_LISTED_ITEMS, total));
    assert_eq!((report.unresolved().0.len(), report.unresolved().1), (MAX_LISTED_ITEMS, total));
    assert_eq!((report.still_mentioned().0.len(), report.still_mentioned().1), (MAX_LISTED_ITEMS, total));
    let reasons = &report.reasons()[&LossOutcome::Withheld];
    assert_eq!((reasons.len(), reasons.values().sum::<u64>()), (MAX_REASONS, total));
    let bytes = minicbor::to_vec(&report).unwrap();
    assert_eq!(minicbor::decode::<LossReport>(&bytes).unwrap(), report);
}

#[test]
fn the_destination_takes_over_numbers_without_items() {
    let mut report = LossReport::new();
    report.add_kept_back(ResourceType::PATIENT, LossOutcome::Withheld, "label", 3);
    report.add_kept_back(ResourceType::GROUP, LossOutcome::NotMovable, "shared", 2);
    assert_eq!(report.verify_filed(), Ok(()));
    assert_eq!((report.items().0.len(), report.items().1, report.counts().held), (0, 5, 5));
}

#[test]
fn bytes_round_trip_and_are_bounded() {
    let report = sample();
    let bytes = minicbor::to_vec(&report).unwrap();
    let back: LossReport = minicbor::decode(&bytes).unwrap();
    assert_eq!(back, report);
    assert_eq!(minicbor::to_vec(&back).unwrap(), bytes);
    let refused = |change: &dyn Fn(&mut LossReport)| {
        let mut report = sample();
        change(&mut report);
        minicbor::decode::<LossReport>(&minicbor::to_vec(&report).unwrap()).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|report| report.items_total = 1));
    assert!(refused(&|report| report.unresolved_total = 0));
    assert!(refused(&|report| report.still_mentioned_total = 0));
    assert!(refused(&|report| report.items[0].reason = "x".repeat(257)));
    assert!(refused(&|report| {
        report.by_type.insert("Nonsense", LossCounts::default());
    }));
    assert!(refused(&|report| {
        report.still_mentioned = vec!["Condition/a".to_owned(); MAX_LISTED_ITEMS + 1];
        report.still_mentioned_total = u64::MAX;
    }));
}

#[test]
fn debug_shows_no_id() {
    let mut report = LossReport::new();
    report.withhold(&key("Condition/secret-id"), "label");
    report.note_unresolved(&key("Condition/secret-id"), "a.b", "not_held");
    report.note_still_mentioned(&key("Condition/secret-id"));
    assert!(!format!("{report:?}{:?}{:?}", report.items(), report.unresolved()).contains("secret"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = minicbor::decode::<LossReport>(&bytes);
    }
}
