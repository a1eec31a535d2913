//! Where the passphrase comes from: a file, the environment, or the person at the terminal.

use std::path::Path;

use waybill_server::files;
use zeroize::Zeroizing;

use crate::console::Console;
use crate::failure::Failure;

/// The environment variable that holds the passphrase, for scripts.
pub const VARIABLE: &str = "WAYBILL_PASSPHRASE";
/// The shortest passphrase of a new wallet. Units: characters.
const SHORTEST: usize = 8;
/// The least estimate of a new wallet's passphrase: more than 10^8 guesses, each of which costs Argon2id ([`zxcvbn::Score::Three`]).
const LEAST: zxcvbn::Score = zxcvbn::Score::Three;
/// Words of this place, which are tried first against a passphrase here.
const OUR_WORDS: [&str; 8] = ["waybill", "wallet", "hospital", "patient", "record", "health", "passphrase", "migrate"];
/// How often a mistyped one may be typed again.
const TRIES: usize = 3;

/// A passphrase, wiped when dropped.
pub type Passphrase = Zeroizing<String>;

/// Where an existing wallet's passphrase comes from.
pub enum Source {
    /// Given beforehand: one try.
    Given(Passphrase),
    /// Asked for: a few tries.
    Terminal,
}

waybill_crypto::opaque_debug!(Source);

impl Source {
    /// How often it may be asked.
    #[must_use]
    pub fn tries(&self) -> usize {
        match self {
            Self::Given(_) => 1,
            Self::Terminal => TRIES,
        }
    }

    /// The passphrase to try next.
    ///
    /// # Errors
    /// [`Failure`] when the terminal cannot be read.
    pub fn next(&self) -> Result<Passphrase, Failure> {
        match self {
            Self::Given(passphrase) => Ok(passphrase.clone()),
            Self::Terminal => ask("Passphrase of the wallet: "),
        }
    }
}

/// Finds the source: the file that was named, the environment, the terminal, in this order.
///
/// # Errors
/// [`Failure`] when there is none of them.
pub fn find(file: Option<&Path>, console: Console) -> Result<Source, Failure> {
    if let Some(file) = file {
        return read(file).map(Source::Given);
    }
    if let Some(given) = std::env::var_os(VARIABLE) {
        let given = given.into_string().map_err(|_| Failure::usage(format!("{VARIABLE} is not text")))?;
        return Ok(Source::Given(Zeroizing::new(given)));
    }
    if console.can_ask() {
        return Ok(Source::Terminal);
    }
    Err(Failure::usage("the wallet needs its passphrase and nobody can be asked")
        .hint(format!("set {VARIABLE}, or name a file with --passphrase-file")))
}

/// A passphrase for a new wallet: neither short nor soon guessed, and at the terminal typed twice.
///
/// # Errors
/// [`Failure`].
pub fn choose(file: Option<&Path>, console: Console) -> Result<Passphrase, Failure> {
    match find(file, console)? {
        Source::Given(given) => {
            checked(&given)?;
            Ok(given)
        }
        Source::Terminal => choose_at_terminal(),
    }
}

/// Asks for a new passphrase twice.
///
/// # Errors
/// [`Failure`].
pub fn choose_at_terminal() -> Result<Passphrase, Failure> {
    let first = ask("Choose a passphrase (several words are good): ")?;
    checked(&first)?;
    if *ask("The same once more: ")? != *first {
        return Err(Failure::usage("the two passphrases differ").hint("run the command again; nothing was changed"));
    }
    Ok(first)
}

const SEVERAL_WORDS: &str =
    "take several words that do not belong together; whoever has the file can try millions of others";

/// Refuses what is short, common, made of names, dates, keyboard rows or repetitions, or of the words of this place.
fn checked(passphrase: &str) -> Result<(), Failure> {
    if passphrase.chars().count() < SHORTEST {
        return Err(Failure::usage(format!("the passphrase has fewer than {SHORTEST} characters")).hint(SEVERAL_WORDS));
    }
    // What the estimate copies is freed, not wiped; the process ends soon after.
    let estimate = zxcvbn::zxcvbn(passphrase, &OUR_WORDS);
    if estimate.score() < LEAST {
        let why = estimate.feedback().and_then(|feedback| feedback.warning());
        let why =
            why.map_or_else(String::new, |why| format!(": {}", why.to_string().trim_end_matches('.').to_lowercase()));
        return Err(Failure::usage(format!("the passphrase is soon guessed{why}")).hint(SEVERAL_WORDS));
    }
    Ok(())
}

/// The first line of a file.
///
/// # Errors
/// [`Failure`] for a file that cannot be read, or is not text.
pub fn read(file: &Path) -> Result<Passphrase, Failure> {
    let bytes = files::read(file).map_err(|e| Failure::environment("the passphrase file cannot be read", e))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the passphrase file is not text"))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(question: &str) -> Result<Passphrase, Failure> {
    let typed = rpassword::prompt_password(question);
    typed.map(Zeroizing::new).map_err(|e| Failure::environment("the terminal cannot be read", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn passphrases_that_are_soon_guessed_are_not_taken() {
        for weak in [
            "password",
            "password1234",
            "qwertyuiop",
            "12345678",
            "aaaaaaaaaaaa",
            "1984-05-17",
            "jennifer1987",
            "waybillhospital",
        ] {
            let failure = checked(weak).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{weak}");
            // ("password" is also a word of the explanation.)
            assert!(weak == "password" || !format!("{failure:?}{failure}").contains(weak), "{weak}");
        }
        for strong in ["correct horse battery", "lamp river eleven stone", "zJ8!kd0Qx", "grüne Hagebutte tanzt"] {
            assert!(checked(strong).is_ok(), "{strong}");
        }
        assert!(checked(&"word ".repeat(4000)).is_err(), "long ones are looked at, too, and soon");
    }

    #[test]
    fn the_first_line_of_a_file_is_the_passphrase_and_short_ones_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passphrase");
        std::fs::write(&file, "eight or more\nand a second line\n").unwrap();
        let console = Console::new(true);
        assert_eq!(*choose(Some(&file), console).unwrap(), "eight or more");
        std::fs::write(&file, "seven77\n").unwrap();
        let failure = choose(Some(&file), console).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.to_string().contains("seven77"));
        assert_eq!(*find(Some(&file), console).unwrap().next().unwrap(), "seven77", "an old wallet opens");
        assert_eq!(read(&folder.path().join("none")).unwrap_err().exit, Exit::Environment);
    }
}
