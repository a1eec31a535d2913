//! What a patient can type.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SCOPE_HELP;

const PATIENT_HELP: &str = "The wallet is one encrypted file. Its passphrase is asked for at the terminal; scripts give it in the environment
variable WAYBILL_PASSPHRASE or with --passphrase-file.

In this order:
  waybill patient init --network network.toml     make the wallet; WRITE DOWN the recovery code
  waybill patient enrol CODE                      with the code each hospital hands you at its counter
  waybill patient preview --at A                  what A holds, and what a hide would leave behind
  waybill patient migrate --from A --to B         move it; asks before anything is signed
  waybill patient receipt --print                 what moved, what did not and why, and who looked

Lost the wallet, or its passphrase? `waybill patient recover` makes it again from the recovery code on paper. It does not know
the cases that were open: they go on without it, and the staff of either hospital can stop them.
Stolen, or somebody has seen the recovery code? Go to each hospital's counter and have the old wallet's key struck out, make a
NEW wallet with `init` and enrol again: a recovered wallet would have the same keys as the stolen one. `stop` ends what is open.

Exit codes:
  0  done
  1  refused, rejected, stopped too late, or not over yet
  2  the command line or an input makes no sense
  3  the wallet file, the network or a server does not do what it should";

const INIT_HELP: &str = "The network file comes from the authority or from your hospital. Compare the fingerprint that is shown with one you got
another way, for example from the notice at the hospital's counter: whoever can replace the file chooses whom your wallet believes.

The recovery code is shown once. It brings every lasting key back, on any machine, without asking anybody. Whoever reads it is you.
With --paper it is also written to a file that is meant to be printed; delete the file afterwards.";

const RECOVER_HELP: &str = "Nothing is asked of any server: all lasting keys follow from the recovery code. What a code cannot bring back are the
hospitals' own keys: give each hospital's card with --card (`hospitals --card` and `init --paper` print them), or enrol there again,
in person. Cases that were open go on at the hospitals and end there; this wallet does not know them.";

const PREVIEW_HELP: &str = "Nothing moves, and only the hospital itself sees the answer: it is sealed to this wallet.

A hidden item stays, but others may still name it: a discharge letter, a medication's reason. Nothing is ever cut out of a signed
document, so `preview` lists where a hidden item is still mentioned: by `reference`, by one of its codes (`code`) or names (`text`), in
elements, narratives and attachments that are text. It says what it does not look into. Hide those too, or let them go.

Withheld allergies, medications and alerts can do harm: whoever treats you may not know what is missing.";

const MIGRATE_HELP: &str = "Shows first what would move and what would stay, and asks. Then it logs in at A, has the delegation vouched for, obtains the
authority's proof and compares it with your delegation, consents at A, presents at B, and follows the case to its signed end.

Every step is kept in the wallet before it is taken. Whatever interrupts it (Ctrl-C, no network, no power): `migrate --resume`
goes on where it was, and `watch` looks on. Until B is given the key, `waybill patient stop` stops it.";

const DISCLOSURES_HELP: &str = "A hospital writes down who looked, who registered a key for this record, and every transfer, with the role of staff and not
their names. `NOT ASKED FOR BY THIS WALLET` marks a case that this wallet never began: another wallet of yours (a recovered one does
not know the cases of its first life), a guardian's, or a thief's. A hospital keeps this list itself, and one that lies can leave
something out; what the other hospital of a transfer wrote down, it cannot.

Of a list of more than 10,000 entries the newest are shown, and how many were cut.";

/// `waybill patient ...`.
#[derive(Debug, Args)]
#[command(after_help = PATIENT_HELP)]
pub struct PatientArgs {
    /// Which wallet, and how it opens.
    #[command(flatten)]
    pub wallet: WalletArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: PatientCommand,
}

/// Which wallet, and how it opens.
#[derive(Debug, Clone, Args)]
pub struct WalletArgs {
    /// The wallet's file.
    #[arg(long, global = true, value_name = "FILE", env = "WAYBILL_WALLET", default_value = "wallet.waybill")]
    pub wallet: PathBuf,
    /// A file whose first line is the passphrase; without it, WAYBILL_PASSPHRASE or a question at the terminal.
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// The text of an enrolment code as it was typed, or where it is to be read. Shown by no `Debug`.
#[derive(Clone)]
pub struct HandedOver(pub String);

waybill_crypto::opaque_debug!(HandedOver);

impl std::str::FromStr for HandedOver {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum PatientCommand {
    /// Make a wallet, and show its recovery code once.
    #[command(after_help = INIT_HELP)]
    Init {
        /// The file that says whom to believe: authority, log, witnesses, relay.
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
        /// Also write a sheet to be printed: recovery code and cards (once there are any), for whoever has no device.
        #[arg(long, value_name = "FILE")]
        paper: Option<PathBuf>,
    },
    /// Register at a hospital with the code it handed over in person.
    Enrol {
        /// The code's text (`WAYBILL1:...`), or a file that holds it, or `-` for standard input.
        code: HandedOver,
        /// How long to wait for the hospital's answer, such as `30s`, `2m`.
        #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = super::span)]
        wait: std::time::Duration,
    },
    /// List the hospitals this wallet is registered at: in what capacity, within which limits, until when.
    Hospitals {
        /// Print cards: each hospital as it was pinned, as text and QR code, for `recover --card`. Keep them beside the recovery code.
        #[arg(long)]
        card: bool,
        /// Only this hospital.
        #[arg(value_name = "HOSPITAL")]
        hospital: Option<String>,
        /// Write the cards to this file instead.
        #[arg(long, value_name = "FILE", requires = "card")]
        out: Option<PathBuf>,
    },
    /// Write the sheet to be printed: the recovery code and the card of every hospital.
    Paper {
        /// Where to write it. Print it, then delete the file: whoever reads it is you.
        file: PathBuf,
    },
    /// Show what a hospital holds, what would move and what would stay.
    #[command(after_help = PREVIEW_HELP)]
    Preview {
        /// The hospital that holds the record; the beginning of its name is enough.
        #[arg(long, value_name = "A")]
        at: String,
        /// The hospital that is to have it: whether it takes a record of this size.
        #[arg(long, value_name = "B")]
        to: Option<String>,
        /// Which part, and but for which items.
        #[command(flatten)]
        part: PartArgs,
    },
    /// List the items of one type at a hospital, with date and title: find here what to hide.
    Items {
        /// The hospital that holds the record; the beginning of its name is enough.
        #[arg(long, value_name = "A")]
        at: String,
        /// The FHIR resource type, such as `Condition`; `preview` lists the types there are.
        #[arg(value_name = "TYPE")]
        resource_type: String,
        /// The most items to list.
        #[arg(long, default_value_t = 1_000)]
        most: usize,
    },
    /// Move a record, or part of it, from one hospital to another.
    #[command(after_help = MIGRATE_HELP)]
    Migrate(MigrateArgs),
    /// Show what is open, what it waits for and who must act.
    Status {
        /// Show what the wallet knows; ask nobody.
        #[arg(long)]
        offline: bool,
    },
    /// Follow a case until its signed end.
    Watch {
        /// The case's number, or the beginning of its id. Without it, the only open case.
        case: Option<String>,
        /// How long to look on, such as `30s`, `10m`, `2h`.
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = super::span)]
        wait: std::time::Duration,
    },
    /// Stop a case. It works until B is given the key, also when every byte has travelled; says whether it came in time.
    Stop {
        /// The case's number, or the beginning of its id. Without it, the only open case.
        case: Option<String>,
        /// How long to wait for the authority's word, such as `30s`, `10m`.
        #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = super::span)]
        wait: std::time::Duration,
    },
    /// Show what moved, what did not and why, and who looked.
    Receipt {
        /// The case's number, or the beginning of its id. Without it, the case that ended last.
        case: Option<String>,
        /// Print a page for the file or the wall: plain text, 80 columns, with the signatures judged anew.
        #[arg(long)]
        print: bool,
        /// Show what the wallet holds; ask nobody who looked.
        #[arg(long)]
        offline: bool,
    },
    /// Show everything that hospitals wrote down about access to this record, newest first, and which cases this wallet never began.
    #[command(after_help = DISCLOSURES_HELP)]
    Disclosures {
        /// Only this hospital; the beginning of its name is enough. Without it, every hospital of this wallet.
        #[arg(long, value_name = "H")]
        at: Option<String>,
    },
    /// List every case of this wallet, closed and open.
    History,
    /// Write what the wallet holds of a closed case as evidence, which `waybill verify` judges.
    Evidence {
        /// The case's number, or the beginning of its id. Without it, the case that ended last.
        case: Option<String>,
        /// Where to write it; the authority's root certificate is put beside it, as `authority-root.pem`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make the wallet again from its recovery code. Asks no server.
    #[command(after_help = RECOVER_HELP)]
    Recover {
        /// The file that says whom to believe.
        #[arg(long, value_name = "FILE")]
        network: PathBuf,
        /// A file with the recovery code, or the whole printed sheet as text; without it, the code is asked for.
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
        /// A file with contact cards. Repeatable.
        #[arg(long, value_name = "FILE")]
        card: Vec<PathBuf>,
    },
    /// Remove the wallet from this machine, for whoever keeps it on paper only: at a counter, say.
    Remove {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Change the wallet's passphrase.
    Passphrase {
        /// A file whose first line is the new passphrase; without it, it is asked for twice.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
}

/// `waybill patient migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The hospital that holds the record; the beginning of its name is enough.
    #[arg(long, value_name = "A", required_unless_present = "resume")]
    pub from: Option<String>,
    /// The hospital that is to have it.
    #[arg(long, value_name = "B", required_unless_present = "resume")]
    pub to: Option<String>,
    /// Which part, and but for which items.
    #[command(flatten)]
    pub part: PartArgs,
    /// Until when it may happen: a span such as `7d` or `12h`, or a date such as 2026-12-24 (the end of that day, UTC).
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    pub until: String,
    /// Ask nothing: the summary is shown and the record moves.
    #[arg(long)]
    pub yes: bool,
    /// Let the record move although allergies, medications or alerts stay behind.
    #[arg(long)]
    pub withhold_safety: bool,
    /// Go on with a case that was interrupted: the one of this number, or the only open one.
    #[arg(long, value_name = "CASE", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["from", "to", "scope", "hide"])]
    pub resume: Option<String>,
    /// How long to follow it, such as `30s`, `10m`, `2h`. The case itself goes on until its own end.
    #[arg(long, value_name = "SPAN", default_value = "6h", value_parser = super::span)]
    pub wait: std::time::Duration,
}

/// Which part of a record, and but for which items.
#[derive(Debug, Clone, Args)]
pub struct PartArgs {
    /// Which part of the record, for example `types=Immunization,AllergyIntolerance;from=2015-01-01`; without it, all of it.
    #[arg(long, value_name = "EXPR", long_help = SCOPE_HELP)]
    pub scope: Option<String>,
    /// Hide this item (`Type/id`, as `items` lists them). Only the hospital that holds it learns of it. Repeatable.
    #[arg(long, value_name = "REF")]
    pub hide: Vec<String>,
}
