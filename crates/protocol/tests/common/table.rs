//! The one message table, `formal/messages.toml`.

use std::path::PathBuf;

/// A file below the root of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A field of a message, a structure or a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// May be absent.
    pub optional: bool,
    /// The structure or choice of this table that it is.
    pub of: Option<String>,
}

pub struct Message {
    pub name: String,
    pub tag: String,
    pub from: String,
    pub to: String,
    pub signer: Vec<String>,
    pub parcel: Option<String>,
    pub sealed: Vec<String>,
    pub fields: Vec<Field>,
}

pub struct Structure {
    pub name: String,
    pub fields: Vec<Field>,
}

pub struct Choice {
    pub name: String,
    pub variants: Vec<Vec<Field>>,
}

pub struct Seal {
    pub label: String,
    pub purpose: String,
    pub place: Vec<String>,
    pub to: String,
    pub bound: String,
    pub plaintext: String,
}

pub struct Table {
    pub messages: Vec<Message>,
    pub structures: Vec<Structure>,
    pub choices: Vec<Choice>,
    pub seals: Vec<Seal>,
}

fn text(entry: &toml::Value, key: &str) -> String {
    entry[key].as_str().unwrap_or_else(|| panic!("{key} is a text")).to_owned()
}

fn texts(list: &toml::Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn fields(list: &toml::Value) -> Vec<Field> {
    let parse = |line: String| {
        let (name, of) = match line.split_once(": ") {
            Some((name, of)) => (name, Some(of.to_owned())),
            None => (line.as_str(), None),
        };
        Field { name: name.trim_end_matches('?').to_owned(), optional: name.ends_with('?'), of }
    };
    texts(list).into_iter().map(parse).collect()
}

impl Table {
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string(repository("formal/messages.toml")).unwrap())
    }

    /// Reads the table, insisting that it has these keys and no others.
    pub fn parse(source: &str) -> Self {
        let table: toml::Table = source.parse().unwrap();
        let entries = |kind: &str, keys: &[&str]| {
            let list = table[kind].as_array().unwrap().clone();
            for key in list.iter().flat_map(|entry| entry.as_table().unwrap().keys()) {
                assert!(keys.contains(&key.as_str()), "{key} is no key of a {kind}");
            }
            list
        };
        let keys: Vec<_> = table.keys().map(String::as_str).collect();
        assert_eq!(keys, ["choice", "message", "seal", "structure"]);
        let message = |e: &toml::Value| Message {
            name: text(e, "name"),
            tag: text(e, "tag"),
            from: text(e, "from"),
            to: text(e, "to"),
            signer: texts(&e["signer"]),
            parcel: e.get("parcel").map(|parcel| parcel.as_str().unwrap().to_owned()),
            sealed: texts(&e["sealed"]),
            fields: fields(&e["fields"]),
        };
        let seal = |e: &toml::Value| Seal {
            label: text(e, "label"),
            purpose: text(e, "purpose"),
            place: texts(&e["place"]),
            to: text(e, "to"),
            bound: text(e, "bound"),
            plaintext: text(e, "plaintext"),
        };
        let choice = |e: &toml::Value| Choice {
            name: text(e, "name"),
            variants: e["variants"].as_array().unwrap().iter().map(fields).collect(),
        };
        let structure = |e: &toml::Value| Structure { name: text(e, "name"), fields: fields(&e["fields"]) };
        const MESSAGE: [&str; 8] = ["name", "tag", "from", "to", "signer", "parcel", "sealed", "fields"];
        Self {
            messages: entries("message", &MESSAGE).iter().map(message).collect(),
            structures: entries("structure", &["name", "fields"]).iter().map(structure).collect(),
            choices: entries("choice", &["name", "variants"]).iter().map(choice).collect(),
            seals: entries("seal", &["label", "purpose", "place", "to", "bound", "plaintext"])
                .iter()
                .map(seal)
                .collect(),
        }
    }

    pub fn message(&self, name: &str) -> &Message {
        self.messages.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("the table has no message {name}"))
    }

    /// The fields of a message or structure.
    pub fn fields(&self, name: &str) -> Option<&[Field]> {
        let message = self.messages.iter().find(|m| m.name == name).map(|m| m.fields.as_slice());
        message.or_else(|| self.structure(name))
    }

    fn structure(&self, name: &str) -> Option<&[Field]> {
        self.structures.iter().find(|s| s.name == name).map(|s| s.fields.as_slice())
    }

    /// What lies inside a field, one list for each variant; nothing when the table does not look inside.
    pub fn inside(&self, field: &Field) -> Vec<&[Field]> {
        let Some(of) = &field.of else { return Vec::new() };
        if let Some(fields) = self.structure(of) {
            return vec![fields];
        }
        let choice = self.choices.iter().find(|c| &c.name == of).unwrap_or_else(|| panic!("the table has no {of}"));
        choice.variants.iter().map(Vec::as_slice).collect()
    }
}
