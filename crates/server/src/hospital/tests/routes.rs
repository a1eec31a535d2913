//! Every admin route asks the policy, and what is refused is written down.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tower::ServiceExt as _;
use waybill_protocol::messages::AuthorityStatementBody;
use waybill_protocol::policy::{Action, decide};

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
