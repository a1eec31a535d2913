//! Records as the hospitals' stores hold them: exported, filtered by scope, compared byte for byte.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};
use waybill_record::facts::facts;
use waybill_record::scope::{Decision, Scope};

use crate::failure::Failure;

/// What of a Patient resource a person would show at another hospital's counter.
const SHOWN: [&str; 4] = ["identifier", "name", "gender", "birthDate"];

fn lines(file: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>, Failure>>, Failure> {
    let cannot = |file: &Path, e| Failure::environment(format!("cannot read {}", file.display()), e);
    let reader = BufReader::new(File::open(file).map_err(|e| cannot(file, e))?);
    let file = file.to_owned();
    Ok(reader.split(b'\n').map(move |line| line.map_err(|e| cannot(&file, e))))
}

/// Whether B's store holds exactly the in-scope part of what A's store holds, byte for byte and in the same order.
///
/// # Errors
/// [`Failure`] when a file cannot be read, or A holds something that is no resource.
pub fn are_same(source: &Path, scope: &Scope, destination: &Path) -> Result<bool, Failure> {
    let mut arrived = lines(destination)?;
    for line in lines(source)? {
        let line = line?;
        let facts = facts(&line)
            .map_err(|e| Failure::failed("the source's store holds a line that is no resource").caused_by(e))?;
        if scope.decide(&facts) != Decision::InScope {
            continue;
        }
        if arrived.next().transpose()? != Some(line) {
            return Ok(false);
        }
    }
    Ok(arrived.next().is_none())
}

/// The patient as B's registrar writes them down: a Patient of its own, with what the person shows at the counter.
///
/// # Errors
/// [`Failure`] when the export does not hold the patient.
pub fn registration_of(source: &Path, id: &str, local: &str) -> Result<Vec<u8>, Failure> {
    for line in lines(source)? {
        let line = line?;
        // A cheap look first: the line of the Patient is one of very many.
        if !line.windows(9).any(|window| window == b"\"Patient\"") {
            continue;
        }
        let Ok(Value::Object(patient)) = serde_json::from_slice::<Value>(&line) else { continue };
        if patient.get("resourceType").and_then(Value::as_str) == Some("Patient")
            && patient.get("id").and_then(Value::as_str) == Some(id)
        {
            let mut own = Map::new();
            own.insert("resourceType".to_owned(), "Patient".into());
            own.insert("id".to_owned(), local.into());
            for name in SHOWN {
                if let Some(value) = patient.get(name) {
                    own.insert(name.to_owned(), value.clone());
                }
            }
            return Ok(serde_json::to_vec(&own).expect("what was read as JSON is JSON"));
        }
    }
    Err(Failure::failed(format!("hospital A holds no patient {id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","name":[{"family":"Ånes"}],"gender":"female","birthDate":"1970","photo":[]}"#;
    const FLAG: &str = r#"{"resourceType":"Flag","id":"f","subject":{"reference":"Patient/p"}}"#;

    #[test]
    fn only_the_same_bytes_in_scope_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, lines: &[&str]| {
            let path = folder.path().join(name);
            std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
            path
        };
        let source = file("source", &[FLAG, PATIENT]);
        let all = Scope::full();
        let part: Scope = "types=Patient;labels=*".parse().unwrap();
        assert!(are_same(&source, &all, &source).unwrap());
        assert!(are_same(&source, &part, &file("part", &[PATIENT])).unwrap());
        assert!(!are_same(&source, &all, &file("part", &[PATIENT])).unwrap(), "one is missing");
        assert!(!are_same(&source, &part, &source).unwrap(), "one is too much");
        assert!(!are_same(&source, &all, &file("other", &[FLAG, &PATIENT.replace("1970", "1971")])).unwrap());
    }

    #[test]
    fn the_registrar_copies_what_is_shown_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        std::fs::write(&path, format!("{FLAG}\n{PATIENT}\n")).unwrap();
        let own: Value = serde_json::from_slice(&registration_of(&path, "p", "b-1").unwrap()).unwrap();
        assert_eq!(
            (own["id"].as_str(), own["birthDate"].as_str(), own.get("photo")),
            (Some("b-1"), Some("1970"), None)
        );
        assert!(registration_of(&path, "q", "b-1").is_err());
    }
}
