//! Filling the templates: every `$word` becomes what the scene says.

use super::SampleForm;
use super::random::{Random, uuid};
use super::templates::{CONDITIONS, DRUGS, FAMILIES, GIVENS, LABELS, LABS, NARRATIVES, SHARED, VACCINES};

/// The number of resources of one visit.
const BLOCK_SIZE: u64 = super::templates::BLOCK.len() as u64;

/// The place within its visit of a patient's resource; the first two are not part of any.
pub(super) fn slot_of(number: u64) -> usize {
    usize::try_from((number - 2) % BLOCK_SIZE).expect("a block is small")
}

/// Where a resource stands: whose it is, in which form, with which number.
pub(super) struct Scene {
    seed: u64,
    index: u64,
    form: SampleForm,
    number: u64,
    attachment: Option<u64>,
    is_shared: bool,
}

impl Scene {
    pub(super) fn new(seed: u64, index: u64, form: SampleForm, number: u64) -> Self {
        Self { seed, index, form, number, attachment: None, is_shared: false }
    }

    pub(super) fn shared(seed: u64, form: SampleForm, number: usize) -> Self {
        Self { is_shared: true, ..Self::new(seed, 0, form, number as u64) }
    }

    pub(super) fn attachment(seed: u64, index: u64, form: SampleForm, number: u64, bytes: u64) -> Self {
        Self { attachment: Some(bytes), ..Self::new(seed, index, form, number) }
    }

    /// The id of the patient's resource with this number.
    pub(super) fn own_id(&self, number: u64) -> String {
        if number == 0 {
            return uuid(self.seed, &["patient"], self.index);
        }
        uuid(self.seed, &["own", &self.index.to_string()], number)
    }

    pub(super) fn binary_id(&self) -> String {
        uuid(self.seed, &["binary", &self.index.to_string()], self.number)
    }

    pub(super) fn document_id(&self) -> String {
        uuid(self.seed, &["document", &self.index.to_string()], self.number)
    }

    /// A reference to a resource of the same input.
    fn reference(&self, name: &str, id: &str) -> String {
        match self.form {
            SampleForm::Ndjson => format!("{name}/{id}"),
            SampleForm::TransactionBundle => format!("urn:uuid:{id}"),
        }
    }

    /// A reference to a resource of the same visit, which stands before this one.
    fn in_visit(&self, name: &str, slot: u64) -> String {
        let first = self.number - (self.number - 2) % BLOCK_SIZE;
        self.reference(name, &self.own_id(first + slot))
    }

    /// A reference to one of the shared resources of a type; conditional in a Bundle if it has an identifier.
    fn shared_reference(&self, name: &str, random: &mut Random) -> String {
        let of_type = SHARED.iter().enumerate().filter(|(_, shared)| shared.name == name).collect::<Vec<_>>();
        let chosen = usize::try_from(random.below(of_type.len() as u64)).expect("the list is short");
        let (number, shared) = of_type[chosen];
        match (self.form, shared.identifier_query()) {
            (SampleForm::TransactionBundle, Some(query)) => format!("{name}?{query}"),
            _ => self.reference(name, &uuid(self.seed, &["shared"], number as u64)),
        }
    }

    /// The day of the visit: visits are spread over twenty years.
    fn date(&self) -> String {
        let visit = if self.attachment.is_some() { self.number } else { self.number.saturating_sub(2) / BLOCK_SIZE };
        let day = (visit * 37 + self.index * 11) % 7300;
        format!("{:04}-{:02}-{:02}", 2005 + day / 365, 1 + day % 365 / 31, 1 + day % 28)
    }

    /// What a word of a template stands for.
    fn word(&self, word: &str, random: &mut Random) -> String {
        match word {
            "id" if self.is_shared => uuid(self.seed, &["shared"], self.number),
            "id" if self.attachment.is_some() => self.document_id(),
            "id" => self.own_id(self.number),
            "binaryid" => self.binary_id(),
            "binary" => match self.form {
                SampleForm::Ndjson => format!("Binary/{}", self.binary_id()),
                SampleForm::TransactionBundle => format!("urn:uuid:{}", self.binary_id()),
            },
            "size" => self.attachment.unwrap_or_default().to_string(),
            "patient" => self.reference("Patient", &self.own_id(0)),
            "relative" => format!("Patient/{}", uuid(self.seed, &["patient"], self.index ^ 1)),
            "encounter" => self.in_visit("Encounter", 0),
            "condition" => self.in_visit("Condition", 1),
            "vital" => self.in_visit("Observation", 2),
            "laboratory" => self.in_visit("Observation", 3),
            "pressure" => self.in_visit("Observation", 4),
            "practitioner" => self.shared_reference("Practitioner", random),
            "organization" => self.shared_reference("Organization", random),
            "location" => self.shared_reference("Location", random),
            "medication" => self.shared_reference("Medication", random),
            "date" => self.date(),
            "birth" => format!("{}-{:02}-{:02}", 1930 + random.below(80), 1 + random.below(12), 1 + random.below(28)),
            "sex" => random.pick(&["female", "male", "other"]).to_owned(),
            "family" => random.pick(FAMILIES).to_owned(),
            "given" => random.pick(GIVENS).to_owned(),
            "mrn" => format!("S{:06}-{}", self.seed % 1_000_000, self.index),
            "lab" => random.pick(LABS).to_owned(),
            "drug" => random.pick(DRUGS).to_owned(),
            "vaccine" => random.pick(VACCINES).to_owned(),
            "disorder" => random.pick(CONDITIONS).to_owned(),
            "label" => random.pick(LABELS).to_owned(),
            "narrative" => random.pick(NARRATIVES).to_owned(),
            "decimal" => decimal(random),
            "minute" => format!("{:02}", random.below(60)),
            "count" => (1 + random.below(9)).to_string(),
            _ => unreachable!("a template uses a word that no scene knows: {word}"),
        }
    }
}

/// A decimal of the kinds that careless software changes.
fn decimal(random: &mut Random) -> String {
    match random.below(12) {
        0 => "1.10".to_owned(),
        1 => "1E-22".to_owned(),
        2 => "-1.000000000000000000E+245".to_owned(),
        3 => format!("{}.{:017}", random.below(9), random.below(100_000_000_000_000_000)),
        4 => format!("1{:016}", random.below(10_000_000_000_000_000)),
        5 => format!("{}.50", random.below(300)),
        6 => format!("{}.000", random.below(300)),
        7 => format!("0.00{}0", 1 + random.below(9)),
        8 => format!("{}e+1", 1 + random.below(99)),
        _ => format!("{}.{}", random.below(300), random.below(10)),
    }
}

/// Replaces every `$word` of a template.
pub(super) fn fill(template: &str, scene: &Scene) -> String {
    let stream = if scene.is_shared {
        "shared fill"
    } else if scene.attachment.is_some() {
        "document fill"
    } else {
        "fill"
    };
    let mut random = Random::new(scene.seed, &[stream, &scene.index.to_string()], scene.number);
    let mut parts = template.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|character: char| !character.is_ascii_lowercase()).unwrap_or(part.len());
        filled.push_str(&scene.word(&part[..end], &mut random));
        filled.push_str(&part[end..]);
    }
    filled
}
