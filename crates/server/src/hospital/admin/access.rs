//! The guard before every route: who asks, in which role, and whether the policy allows it. Denials are written down, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use waybill_protocol::policy::{Action, Role};

use super::{Admin, service};
use crate::hospital::audit::AuditRow;
use crate::hospital::staff::{Asked, Member, Staff};
use crate::net::peer::Peer;
use crate::problem::Problem;

/// A page that refreshes itself is one look. Units: milliseconds.
const ONE_LOOK_MS: u64 = 60_000;
/// Most looks remembered.
const MOST: usize = 10_000;

/// What a route's guard knows.
#[derive(Clone)]
pub(super) struct Guard {
    pub admin: Arc<Admin>,
    pub action: Action,
}

/// As whom somebody acts: `?role=` and `?user=`.
#[derive(Deserialize)]
struct Acting {
    role: Option<String>,
    user: Option<String>,
}

fn user(request: &Request) -> Option<u32> {
    request.extensions().get::<Peer>().and_then(|peer| peer.user)
}

fn not_permitted(reason: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "not-permitted", "whoever asks may not do this").with_detail(reason)
}

/// Asks the policy; whoever may goes on as a [`Member`]. Decided before anything is looked up, so that a refusal tells nothing of what
/// exists.
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    // A request's body is not shared between threads: what is asked of it is taken out first.
    let (uri, local) = (request.uri().clone(), user(&request));
    match admit(&guard, &uri, local).await {
        Ok(member) => {
            request.extensions_mut().insert(member);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn admit(guard: &Guard, uri: &Uri, local: Option<u32>) -> Result<Member, Problem> {
    let Query(acting) =
        Query::<Acting>::try_from_uri(uri).map_err(|_| Problem::malformed("role and user are given once each"))?;
    let known = |name: &String| Role::parse(name).filter(|role| Role::STAFF.contains(role));
    let role = match &acting.role {
        Some(name) => Some(known(name).ok_or_else(|| Problem::malformed("the role is not known"))?),
        None => None,
    };
    let user_name = acting.user.filter(|user| !user.is_empty() && user.len() <= 64);
    let asked = Asked { user: user_name, role };
    let engine = &guard.admin.engine;
    match guard.admin.staff.admit(local, &asked, guard.action) {
        Ok(member) => Ok(member),
        Err(denied) => {
            tracing::info!(action = guard.action.as_str(), reason = denied.reason, "staff action denied");
            let row = AuditRow::denied(&denied, guard.action.as_str());
            engine.note(row).await.map_err(|e| service(&e))?;
            Err(not_permitted(denied.reason))
        }
    }
}

/// Routes that belong to whoever runs the server: with a staff table, to nobody else.
pub fn owner_only(router: Router, staff: &Staff) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(staff.clone()), owner))
}

async fn owner(State(staff): State<Arc<Staff>>, request: Request, next: Next) -> Response {
    if staff.has_table() && !staff.is_owner(user(&request)) {
        return not_permitted("this belongs to the user whose process serves").into_response();
    }
    next.run(request).await
}

/// Who, in which role, looked at what.
type Look = (String, Role, &'static str, String);

/// Who looked at what a moment ago, so that a page that refreshes itself does not fill the audit trail.
#[derive(Default)]
pub struct Looks(Mutex<BTreeMap<Look, u64>>);

impl Looks {
    /// Whether this look is a new one.
    pub(super) fn is_new(&self, member: &Member, action: Action, subject: &str, now_ms: u64) -> bool {
        let mut looks = self.0.lock().expect("nobody panics while holding the looks");
        let key = (member.user.clone(), member.role, action.as_str(), subject.to_owned());
        if looks.get(&key).is_some_and(|at| now_ms < at.saturating_add(ONE_LOOK_MS)) {
            return false;
        }
        if looks.len() >= MOST {
            looks.clear();
        }
        looks.insert(key, now_ms);
        true
    }
}

impl Admin {
    /// Writes a look down before it is shown, unless the same person looked at the same a moment ago.
    pub(super) async fn look(
        &self,
        member: &Member,
        action: Action,
        subject: &str,
        row: AuditRow,
    ) -> Result<(), Problem> {
        if self.looks.is_new(member, action, subject, self.engine.party.clock.now_ms()) {
            self.engine.note(row).await.map_err(|e| service(&e))?;
        }
        Ok(())
    }
}
