//! Every admin route asks the policy, and what is refused is written down.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tower::ServiceExt as _;
use waybill_protocol::messages::AuthorityStatementBody;
use waybill_protocol::policy::{Action, decide};

use super::common::Step;
use super::*;
use crate::hospital::admin::{self, Admin, Looks};
use crate::hospital::staff::{LocalUsers, Staff, StaffTable};
use crate::hospital::work::Stages;
use crate::net::peer::Peer;

const OWNER: u32 = 4711;

fn admin(house: &House, statement: AuthorityStatementBody, table: &str) -> Admin {
    let table: StaffTable = toml::from_str(table).unwrap();
    Admin {
        engine: house.engine.clone(),
        stages: Stages::default(),
        mailbox: "https://relay.example/mailbox/x".to_owned(),
        statement,
        staff: Staff::new(&table, LocalUsers::default(), OWNER).unwrap(),
        copier: None,
        looks: Looks::default(),
        full: crate::outbox::FullMailboxes::default(),
    }
}

fn request(method: &str, path: &str, query: &str, user: Option<u32>) -> Request<Body> {
    let path =
        path.replace("{proof}", &"0".repeat(64)).replace("{number}", &"0".repeat(32)).replace("{local}", "nobody");
    let mut request = Request::builder().method(method).uri(format!("{path}?{query}")).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer { address: None, party: None, user });
    request
}

#[tokio::test]
async fn every_route_asks_the_policy_for_every_role() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let router = admin::router(admin(&house, world.statement.clone(), ""));
    let mut asked = Vec::new();
    for (method, path, action) in admin::listed() {
        for role in Role::STAFF {
            let query = format!("role={}&user=anna", role.as_str());
            let answer = router.clone().oneshot(request(method.as_str(), path, &query, Some(OWNER))).await.unwrap();
            let refused = answer.status() == StatusCode::FORBIDDEN;
            assert_eq!(refused, !decide(role, action).allowed, "{method} {path} as {}", role.as_str());
            assert_ne!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
        asked.push(action);
    }
    let of_staff = |action: &&Action| !action.allowed().contains(&Role::AuthorityOperator);
    for action in Action::ALL.iter().filter(of_staff) {
        assert!(asked.contains(action), "{action:?} has a route");
    }
    let trail = house.trail().await;
    let denied = trail.iter().filter(|row| row.outcome == "denied").count();
    let expected: usize = admin::listed()
        .iter()
        .map(|(_, _, action)| Role::STAFF.iter().filter(|role| !decide(**role, *action).allowed).count())
        .sum();
    assert_eq!(denied, expected, "each refusal is in the audit trail");
}

#[tokio::test]
async fn strangers_and_unknown_roles_are_refused_whatever_they_ask() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let router = admin::router(admin(&house, world.statement.clone(), ""));
    let ask =
        async |query: &str, user| router.clone().oneshot(request("GET", "/cases", query, user)).await.unwrap().status();
    assert_eq!(ask("", Some(OWNER)).await, StatusCode::OK);
    assert_eq!(ask("", Some(1)).await, StatusCode::FORBIDDEN);
    assert_eq!(ask("", None).await, StatusCode::FORBIDDEN);
    assert_eq!(ask("role=king", Some(OWNER)).await, StatusCode::BAD_REQUEST);
    assert_eq!(ask("role=authority-operator", Some(OWNER)).await, StatusCode::BAD_REQUEST);
    let table = format!("[users]\n{OWNER} = [\"auditor\"]\n1 = [\"registrar\"]");
    let router = admin::router(admin(&house, world.statement.clone(), &table));
    let ask = async |path: &str, user| router.clone().oneshot(request("GET", path, "", user)).await.unwrap().status();
    assert_eq!(ask("/audit", Some(OWNER)).await, StatusCode::OK);
    assert_eq!(ask("/audit", Some(1)).await, StatusCode::FORBIDDEN);
    assert_eq!(ask("/patients", Some(1)).await, StatusCode::OK);
    assert_eq!(ask("/patients", Some(2)).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn looking_at_a_case_again_and_again_is_one_look() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let router = admin::router(admin(&house, world.statement.clone(), ""));
    let look = async || {
        router.clone().oneshot(request("GET", "/patients", "user=anna", Some(OWNER))).await.unwrap();
        house.trail().await.iter().filter(|row| row.action == "list-patients").count()
    };
    assert_eq!((look().await, look().await), (1, 1));
    house.turn(NOW.plus(61));
    assert_eq!(look().await, 2);
}

async fn body(answer: axum::response::Response) -> serde_json::Value {
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn cases_come_in_pages_and_a_clinician_sees_what_came() {
    let mut world = World::new();
    let came = world.migrate(1, Step::Closed);
    let house = House::new(&world, &world.b).await;
    house.put_destination(&came.destination()).await;
    for number in 2..5 {
        house.put_destination(&world.migrate(number, Step::Requested).destination()).await;
    }
    let router = admin::router(admin(&house, world.statement.clone(), ""));
    let ask =
        async |path: &str, query: &str| router.clone().oneshot(request("GET", path, query, Some(OWNER))).await.unwrap();
    let (mut seen, mut after) = (std::collections::BTreeSet::new(), String::new());
    loop {
        let page = body(ask("/cases", &format!("limit=3{after}")).await).await;
        let page = page.as_array().unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = format!("&after={}", last["place"].as_str().unwrap());
        seen.extend(page.iter().map(|line| line["proof"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen.len(), 4);
    assert_eq!(ask("/cases", "after=elsewhere").await.status(), StatusCode::BAD_REQUEST);
    let shown = body(ask("/cases", "role=clinician&limit=1").await).await;
    assert_eq!(shown.as_array().unwrap().len(), 1, "what is not shown leaves no gap");
    assert_eq!(shown[0]["proof"], serde_json::json!(came.proof.id().to_string()));
    for proof in &seen {
        let expected = if *proof == came.proof.id().to_string() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        assert_eq!(ask(&format!("/cases/{proof}"), "role=clinician").await.status(), expected);
    }
    assert_eq!(house.trail().await.iter().filter(|row| row.outcome == "denied").count(), 3);
}

#[tokio::test]
async fn what_is_too_late_says_in_which_state_the_case_is_and_what_can_be_done() {
    let mut world = World::new();
    let (lodged, over) = (world.migrate(1, Step::Lodged), world.migrate(2, Step::Closed));
    let house = House::new(&world, &world.a).await;
    house.put_source(&lodged.source()).await;
    house.put_source(&over.source()).await;
    let router = admin::router(admin(&house, world.statement.clone(), ""));
    let ask = async |m: &common::Migration, verb: &str| {
        let path = format!("/cases/{}/{verb}", m.proof.id());
        let query = if verb == "reconcile" { "role=clinician" } else { "" };
        let answer = router.clone().oneshot(request("POST", &path, query, Some(OWNER))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CONFLICT, "{verb}");
        body(answer).await["detail"].as_str().unwrap().to_owned()
    };
    assert!(ask(&lodged, "approve").await.contains("`lodged`"));
    assert!(ask(&lodged, "refuse").await.contains("hospital abort"), "there is another way");
    for verb in ["approve", "refuse", "abort", "resend"] {
        let detail = ask(&over, verb).await;
        assert!(detail.contains("`closed`, ended `filed`") && detail.contains("evidence"), "{verb}: {detail}");
    }
    let nothing = router.clone().oneshot(request("POST", "/cases/{proof}/abort", "", Some(OWNER))).await.unwrap();
    assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_patient_whom_nobody_knows_is_not_one_without_keys() {
    let world = World::new();
    let house = House::new(&world, &world.a).await;
    let router = admin::router(admin(&house, world.statement.clone(), ""));
    let ask = async |patient: &str| {
        let path = format!("/patients/{patient}/keys");
        router.clone().oneshot(request("GET", &path, "", Some(OWNER))).await.unwrap().status()
    };
    assert_eq!((ask(&house.local.0).await, ask("nobody").await), (StatusCode::OK, StatusCode::NOT_FOUND));
}
