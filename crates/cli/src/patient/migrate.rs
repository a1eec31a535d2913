//! `waybill patient migrate`: from the first question to the signed end.

use serde_json::json;
use waybill_protocol::ids::HospitalId;
use waybill_protocol::messages::{KeptBack, Terms};
use waybill_protocol::patient::Wish;
use waybill_protocol::rejection::Code;
use waybill_wallet::{CaseNumber, Party, Received, Stage};

use super::follow;
use super::preview::{self, Part};
use super::session::{ANSWER, Session, wallet_failure};
use super::words;
use crate::args::MigrateArgs;
use crate::courier::now;
use crate::failure::{Exit, Failure};
use crate::when::{moment, until};

/// How often one command asks for a voucher.
const MOST_VOUCHERS: u32 = 3;

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub async fn run(session: &mut Session, args: &MigrateArgs) -> Result<Exit, Failure> {
    let number = match &args.resume {
        Some(case) => resume(session, case)?,
        None => begin(session, args).await?,
    };
    drive(session, number).await?;
    follow::to_the_end(session, number, args.wait).await
}

/// Takes an interrupted case up again.
fn resume(session: &mut Session, case: &str) -> Result<CaseNumber, Failure> {
    let number = session.open_case(Some(case))?;
    let open = session.wallet.open_case(number).map_err(wallet_failure)?;
    session
        .console
        .say(format!("Going on with case {number}: {} -> {}.", open.source.hospital, open.destination.hospital));
    if open.stage == Stage::AwaitingVoucher {
        // A login is good for a few minutes only, and the one before may have been refused for the time being.
        session.wallet.retry_voucher(now(), number).map_err(wallet_failure)?;
    }
    Ok(number)
}

/// Shows what would move, asks, and begins the case.
async fn begin(session: &mut Session, args: &MigrateArgs) -> Result<CaseNumber, Failure> {
    let part = Part::read(&args.part)?;
    let named = |text: &Option<String>| session.hospital(text.as_deref().unwrap_or_default()).cloned();
    let (source, destination) = (named(&args.from)?, named(&args.to)?);
    if source.hospital == destination.hospital {
        return Err(wallet_failure(waybill_wallet::WalletError::SameHospital));
    }
    let now_ = now();
    let expires = until(&args.until, now_).filter(|end| *end > now_ && end.0 - now_.0 <= Terms::MAX_LIFETIME_SECONDS);
    let expires = expires.ok_or_else(|| {
        Failure::usage(format!("--until {} is no end of a delegation", args.until)).hint(format!(
            "write a span such as 7d or a date such as 2026-12-24; it must lie in the future, within {} days",
            Terms::MAX_LIFETIME_SECONDS / 86_400
        ))
    })?;
    // Both hospitals hold the key to these limits, and would refuse only after everybody has worked.
    if source.limits.verify(&part.scope, Some(&destination.hospital)).is_err() {
        return Err(Failure::failed(format!(
            "at {} this wallet may decide only for {}",
            source.hospital,
            words::limits(&source.limits)
        ))
        .hint(words::advice(Code::ConsentLimit)));
    }
    session.refresh_trust().await?;
    let kept = summary(session, args, &part, &source.hospital, &destination.hospital).await?;
    session.console.say(format!("From {} to {}, until {}.", source.hospital, destination.hospital, moment(expires)));
    let instead = "add --yes when you have read the summary (waybill patient preview shows it)";
    if !args.yes && !session.console.confirm("Shall this move?", instead)? {
        return Err(Failure::failed("nothing was begun"));
    }
    // The login may take a while to arrive; the delegation begins when it was decided.
    let wish = Wish { scope: part.scope, hides: part.hides, not_before: now_, expires };
    let begun = session.wallet.delegate(now_, &source.hospital, &destination.hospital, wish);
    let (number, _) = begun.map_err(wallet_failure)?;
    if let Some(kept) = kept {
        session.wallet.foretell(number, kept).map_err(wallet_failure)?;
    }
    Ok(number)
}

/// Shows what would move and what would stay, and gives the latter where the source says it; refuses where what stays can do harm and nobody said that it may.
async fn summary(
    session: &mut Session,
    args: &MigrateArgs,
    part: &Part,
    source: &HospitalId,
    destination: &HospitalId,
) -> Result<Option<Vec<KeptBack>>, Failure> {
    let (dangerous, kept) = match preview::ask_both(session, source, Some(destination), part).await? {
        Ok(view) => {
            view.tell(session.console);
            let missing: Vec<&str> = view.hidden.iter().filter(|h| !h.held).map(|h| h.item.as_str()).collect();
            if !missing.is_empty() {
                return Err(Failure::failed(format!(
                    "{source} holds no such item of yours to hide: {}; nothing was begun",
                    missing.join(", ")
                ))
                .hint(format!(
                    "`waybill patient items --at {source} TYPE` lists the items there are, as --hide takes them"
                )));
            }
            if let Some(hospital) = view.too_large() {
                return Err(Failure::failed(format!("the record is too large for {hospital}"))
                    .hint("move it in parts, for example with --scope 'to=2015' and then --scope 'from=2016'"));
            }
            let warnings = view.warnings.iter().map(|w| format!("{} {}", w.count, w.resource_type));
            (warnings.collect::<Vec<_>>(), Some(view.kept()))
        }
        Err(code) => {
            // Without a preview nobody knows what there is: whatever could stay counts.
            session.console.say(format!("{source} does not show what it holds: {} ({code})", code.sentence()));
            if !part.hides.is_empty() {
                session.console.say("So it is not known whether it holds what you hide; the receipt will say so.");
            }
            let may: Vec<String> = part.may_withhold().into_iter().map(str::to_owned).collect();
            if !may.is_empty() {
                preview::tell_danger(session.console, &may.join(", "));
            }
            (may, None)
        }
    };
    if dangerous.is_empty() || args.withhold_safety {
        return Ok(kept);
    }
    let what = dangerous.join(", ");
    let instead = "add --withhold-safety if they shall stay all the same, or let them move";
    let refused =
        Failure::failed(format!("allergies, medications or alerts would stay behind ({what}); nothing was begun"))
            .hint(instead);
    if args.yes || session.console.is_json() || !session.console.can_ask() {
        return Err(refused);
    }
    if session.console.confirm("Shall they stay behind all the same?", instead)? { Ok(kept) } else { Err(refused) }
}

/// Login, voucher, delegation, proof, consent, presentation: whatever of them is still to be done.
async fn drive(session: &mut Session, number: CaseNumber) -> Result<(), Failure> {
    session.refresh_trust().await?;
    let mut vouchers = 0;
    loop {
        let case = session.wallet.open_case(number).map_err(wallet_failure)?;
        let source = case.source.hospital.clone();
        match case.stage {
            // Two clocks that differ would make every voucher look old.
            Stage::AwaitingVoucher if vouchers == MOST_VOUCHERS => {
                return Err(refused(session, number, "the authority", Code::VoucherExpired));
            }
            Stage::AwaitingVoucher => {
                vouchers += 1;
                vouched(session, number, &source).await?;
            }
            Stage::AwaitingProof => proven(session, number).await?,
            Stage::ProofHeld => {
                session.wallet.consent(now(), number).map_err(wallet_failure)?;
                session.console.say("You consent; the proof is on its way to the destination.");
            }
            Stage::AwaitingEnd | Stage::Unacknowledged => return Ok(()),
        }
    }
}

async fn vouched(session: &mut Session, number: CaseNumber, source: &HospitalId) -> Result<(), Failure> {
    let progress = session.console.progress(format!("logging in at {source}"));
    let answer = session.answer(ANSWER, |received| match received {
        Received::Vouched { case, .. } if *case == number => Some(Ok(())),
        Received::LoginRefused { code, case: Some(case), .. } if *case == number => Some(Err(*code)),
        _ => None,
    });
    let answer = answer.await.map_err(|failure| kept(failure, number));
    drop(progress);
    match answer? {
        Ok(()) => {
            session.console.say(format!("{source} vouches for a fresh key of yours; the delegation is signed."));
            Ok(())
        }
        Err(code) => Err(refused(session, number, source.as_str(), code)),
    }
}

async fn proven(session: &mut Session, number: CaseNumber) -> Result<(), Failure> {
    let progress = session.console.progress("waiting for the authority's proof");
    let answer = session.answer(ANSWER, |received| match received {
        Received::Proof { case, .. } if *case == number => Some(Ok(())),
        Received::ProofRefused { case, code } if *case == number => Some(Err((Party::Authority, *code))),
        Received::Refused { case, notice } if *case == number => match notice.code {
            // The delegation was posted twice; the proof of the first is on its way.
            Code::DelegationRepeated => None,
            code => Some(Err((notice.from.clone(), code))),
        },
        _ => None,
    });
    let answer = answer.await.map_err(|failure| kept(failure, number));
    drop(progress);
    match answer? {
        Ok(()) => {
            session.console.say("The authority's logged proof says in every field what you delegated.");
            Ok(())
        }
        Err((Party::Authority, Code::VoucherExpired)) => {
            session.console.say("The voucher had run out when the delegation arrived; a new one is asked for.");
            session.wallet.retry_voucher(now(), number).map(|_| ()).map_err(wallet_failure)
        }
        Err((from, code)) => Err(refused(session, number, &from.to_string(), code)),
    }
}

/// Nothing is lost by an answer that does not come.
fn kept(failure: Failure, number: CaseNumber) -> Failure {
    failure.hint(format!("nothing is lost: go on later with `waybill patient migrate --resume {number}`"))
}

fn refused(session: &Session, number: CaseNumber, from: &str, code: Code) -> Failure {
    session.console.json(&json!({
        "case": number.ordinal(), "outcome": "refused", "from": from, "code": code.as_str(), "sentence": code.sentence(),
        "open": session.wallet.open_case(number).is_ok(),
    }));
    Failure::failed(format!("{from} refuses: {} ({code})", code.sentence())).hint(words::advice(code))
}
