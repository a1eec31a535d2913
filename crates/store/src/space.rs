//! The named spaces: each a table of the same shape (key, version, value).

macro_rules! spaces {
    ($($(#[$doc:meta])* $name:ident => $table:literal,)*) => {
        /// A named set of rows; what a space guarantees is what every batch that touches it must keep.
        ///
        /// A new space needs a variant here and a migration pair that creates its table; a test holds both together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Space { $($(#[$doc])* $name,)* }

        impl Space {
            /// Every space, in declaration order.
            pub const ALL: &'static [Space] = &[$(Space::$name,)*];

            /// The table that holds this space.
            pub const fn table(self) -> &'static str {
                match self { $(Space::$name => $table,)* }
            }
        }
    };
}

spaces! {
    /// One row a case and attempt: its state; changed only by compare-and-swap on the version.
    Case => "space_case",
    /// One row a spent proof: inserted once with `Expect::Absent`, never deleted (single use outlives the case).
    Spent => "space_spent",
    /// Unique rows of any other kind (a delegation key thumbprint, a message id): inserted with `Expect::Absent`.
    Unique => "space_unique",
    /// Registered patients: pseudonym to the local record number and consent keys.
    Registration => "space_registration",
    /// Open enrolment codes: deleted in the batch that uses them.
    Enrolment => "space_enrolment",
    /// Nonces seen inside their time window: inserted with `Expect::Absent`, swept after it.
    Nonce => "space_nonce",
    /// Patients known by another key than their pseudonym.
    Patient => "space_patient",
    /// The resources a hospital holds: (type, id) to exact bytes, or to the object that holds them.
    Resource => "space_resource",
    /// References between resources, both directions.
    Reference => "space_reference",
    /// Business identifiers of resources, for conditional references.
    Identifier => "space_identifier",
    /// Visited and frontier rows of a closure being computed; thrown away with it.
    Frontier => "space_frontier",
    /// Frozen snapshots: what exactly one case exports.
    Snapshot => "space_snapshot",
    /// Sealed chunks persisted before any byte leaves, and received chunks before filing.
    Staged => "space_staged",
    /// Resources received and opened but not yet part of the chart; promoted together with the filed mark.
    Filed => "space_filed",
    /// The chart: resources that were filed, by patient.
    Chart => "space_chart",
    /// Quarantined items and why.
    Quarantine => "space_quarantine",
    /// Mailboxes: their public keys, quotas and expiry.
    Mailbox => "space_mailbox",
    /// Messages waiting in mailboxes, by (mailbox, sequence).
    Mail => "space_mail",
    /// Blobs waiting in mailboxes, by (mailbox, address).
    Blob => "space_blob",
    /// State of the log: size, root, last cosigned checkpoint; compare-and-swap.
    Log => "space_log",
    /// Tiles of the log: written once, never changed.
    Tile => "space_tile",
    /// Log leaves by content, so that an index can be found again.
    Leaf => "space_leaf",
    /// Checkpoints seen by a witness or by a hospital; grows only.
    Checkpoint => "space_checkpoint",
    /// Audit events, append only.
    Audit => "space_audit",
    /// Issued certificates, their intents and revocations.
    Certificate => "space_certificate",
    /// Settings of the party and its migrations of meaning.
    Setting => "space_setting",
    /// Messages of a case, kept for its evidence file.
    Evidence => "space_evidence",
    /// Loss reports of closed cases.
    Loss => "space_loss",
    /// Answers held back until their leaf is in a cosigned checkpoint.
    Pending => "space_pending",
}

impl Space {
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn tables_are_distinct_and_need_no_quoting() {
        let tables: BTreeSet<_> = Space::ALL.iter().map(|s| s.table()).collect();
        assert_eq!(tables.len(), Space::ALL.len());
        assert!(tables.iter().all(|t| t.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
