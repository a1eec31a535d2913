//! The sheet for paper: recovery code and cards, as text and QR codes, and what to do with them.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use waybill_protocol::patient::Contact;
use waybill_wallet::card::CARD_PREFIX;
use waybill_wallet::{RecoveryCode, Wallet, qr_terminal};
use zeroize::Zeroizing;

use super::session::{Session, write_private};
use super::words;
use crate::failure::Failure;
use crate::when::{day, moment};

/// Width of a line. Units: characters.
const WIDTH: usize = 76;
/// Marks the lines of the recovery code on a sheet.
const CODE_HEADING: &str = "RECOVERY CODE";

/// Writes the sheet to a file of its own.
///
/// # Errors
/// [`Failure`]; nothing is overwritten.
pub fn write(session: &Session, file: &Path) -> Result<(), Failure> {
    write_private(file, sheet(&session.wallet).as_bytes())?;
    let cards = session.wallet.contacts().len();
    session.console.result(
        &json!({ "paper": file, "cards": cards }),
        format!(
            "The recovery code and {cards} card(s) are in {}. Print it now, then delete the file: whoever reads it is you.",
            file.display()
        ),
    );
    Ok(())
}

/// The sheet.
///
/// Security: whoever reads it is the patient.
#[must_use]
pub fn sheet(wallet: &Wallet) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(16 * 1024));
    out.push_str("WAYBILL - keep this sheet like a passport, and show it to nobody who does not need it\n");
    out.push_str(&"=".repeat(WIDTH));
    out.push_str("\n\nWhoever reads the recovery code can act as you. If the sheet is lost or seen,\n");
    out.push_str("go to each hospital's counter, have this wallet's key struck out, and make a\nnew wallet.\n\n");
    out.push_str(CODE_HEADING);
    out.push_str("\n\n");
    out.push_str(&wallet.recovery_code().printed());
    out.push_str("\nTo use it: waybill patient recover --network network.toml\n");
    for contact in wallet.contacts() {
        out.push('\n');
        out.push_str(&"-".repeat(WIDTH));
        out.push('\n');
        out.push_str(&card(wallet, contact));
    }
    out
}

/// One hospital's card: for people, as text, as QR code.
#[must_use]
pub fn card(wallet: &Wallet, contact: &Contact) -> String {
    let text = wallet.card(contact);
    let mut out = format!(
        "CARD of {}\nregistered as {} until {}, for {}\n\n",
        contact.hospital,
        words::relation(contact.relation),
        day(contact.expires),
        words::limits(&contact.limits)
    );
    for line in text.as_bytes().chunks(WIDTH) {
        // The text is of ASCII letters, so that it may be cut anywhere.
        let _ = writeln!(out, "{}", String::from_utf8_lossy(line));
    }
    if let Ok(picture) = qr_terminal(&text) {
        let _ = writeln!(out, "\n{picture}");
    }
    out
}

/// The recovery code of a text: a code alone, or a whole sheet.
///
/// # Errors
/// [`Failure`] with the groups to look at.
pub fn read_code(text: &str) -> Result<RecoveryCode, Failure> {
    let groups: Zeroizing<String> = match text.lines().position(|line| line.trim() == CODE_HEADING) {
        // On a sheet, the lines of numbered groups below the heading.
        Some(heading) => {
            let lines = text.lines().skip(heading + 1).skip_while(|line| line.trim().is_empty());
            Zeroizing::new(lines.take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n"))
        }
        None => Zeroizing::new(text.to_owned()),
    };
    RecoveryCode::parse(&groups).map_err(|e| {
        Failure::usage("the recovery code cannot be read")
            .caused_by(e)
            .hint("compare it with the paper, group by group")
    })
}

/// The cards of a text, each from its prefix to the next empty line.
#[must_use]
pub fn read_cards(text: &str) -> Vec<String> {
    let mut cards: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        let begins = line.get(..CARD_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(CARD_PREFIX));
        if begins {
            cards.push(line.to_owned());
        } else if let (true, Some(card)) = (inside && !line.is_empty(), cards.last_mut()) {
            card.push_str(line);
        }
        inside = begins || inside && !line.is_empty();
    }
    cards
}

/// When something was printed.
#[must_use]
pub fn printed_at() -> String {
    moment(crate::courier::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use waybill_crypto::pseudonym::RootSecret;

    #[test]
    fn a_sheet_and_a_bare_code_read_back() {
        let code = RecoveryCode::new(RootSecret::from_bytes([7; 32]));
        let sheet = format!("title\n\n{CODE_HEADING}\n\n{}\nTo use it: ...\n", *code.printed());
        for text in [sheet.as_str(), &code.printed(), &code.to_text()] {
            assert_eq!(read_code(text).unwrap().root().expose(), code.root().expose());
        }
        let wrong = read_code(&code.to_text().replacen(&code.to_text()[..1], "!", 1)).unwrap_err();
        assert_eq!(wrong.exit, Exit::Usage);
        assert!(wrong.to_string().contains("group 1"), "{wrong}");
    }

    #[test]
    fn cards_are_found_among_other_text_and_put_together() {
        let text = "CARD of x\n\n  WAYBILL-CARD1:AAAA\n  BBBB\n\n█▀▄\nCARD of y\nwaybill-card1:CCCC\n\nrest";
        assert_eq!(read_cards(text), ["WAYBILL-CARD1:AAAABBBB", "waybill-card1:CCCC"]);
        assert!(read_cards("nothing here").is_empty());
    }
}
