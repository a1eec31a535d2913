//! The bytes of a loss report.

use super::{
    LOSS_REPORT_FORMAT, LossCounts, LossItem, LossOutcome, LossReport, MAX_LISTED_ITEMS, MAX_REASONS, MAX_TEXT_BYTES,
    UnresolvedReference,
};
use crate::types::{RESOURCE_TYPES, resource_type};
use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode};
use std::collections::BTreeMap;

/// The fields as they stand on the wire; bounds and order are checked when they become a [`LossReport`].
#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    counts: LossCounts,
    #[n(1)]
    by_type: Vec<(String, LossCounts)>,
    #[n(2)]
    reasons: Vec<(LossOutcome, String, u64)>,
    #[n(3)]
    items: Vec<LossItem>,
    #[n(4)]
    items_total: u64,
    #[n(5)]
    unresolved: Vec<UnresolvedReference>,
    #[n(6)]
    unresolved_total: u64,
    #[n(7)]
    still_mentioned: Vec<String>,
    #[n(8)]
    still_mentioned_total: u64,
}

impl<C> Encode<C> for LossReport {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let flat = |(outcome, reasons): (&LossOutcome, &BTreeMap<String, u64>)| {
            let outcome = *outcome;
            reasons.iter().map(move |(reason, count)| (outcome, reason.clone(), *count)).collect::<Vec<_>>()
        };
        let wire = Wire {
            counts: self.counts,
            by_type: self.by_type.iter().map(|(name, counts)| ((*name).to_owned(), *counts)).collect(),
            reasons: self.reasons.iter().flat_map(flat).collect(),
            items: self.items.clone(),
            items_total: self.items_total,
            unresolved: self.unresolved.clone(),
            unresolved_total: self.unresolved_total,
            still_mentioned: self.still_mentioned.clone(),
            still_mentioned_total: self.still_mentioned_total,
        };
        wire.encode(e, context)
    }
}

impl<'b, C> Decode<'b, C> for LossReport {
    fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, Error> {
        let wire = Wire::decode(d, context)?;
        check_bounds(&wire).map_err(Error::message)?;
        let ascending = wire.by_type.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && wire.reasons.windows(2).all(|pair| (pair[0].0, &pair[0].1) < (pair[1].0, &pair[1].1));
        if !ascending {
            return Err(Error::message("the tables of a loss report are ascending"));
        }
        let by_type = wire.by_type.iter().map(|(name, counts)| Some((resource_type(name)?, *counts)));
        let by_type = by_type.collect::<Option<BTreeMap<_, _>>>();
        let mut reasons: BTreeMap<LossOutcome, BTreeMap<String, u64>> = BTreeMap::new();
        for (outcome, reason, count) in wire.reasons {
            reasons.entry(outcome).or_default().insert(reason, count);
        }
        Ok(Self {
            format: LOSS_REPORT_FORMAT,
            counts: wire.counts,
            by_type: by_type.ok_or_else(|| Error::message("not a resource type of FHIR R4"))?,
            reasons,
            items: wire.items,
            items_total: wire.items_total,
            unresolved: wire.unresolved,
            unresolved_total: wire.unresolved_total,
            still_mentioned: wire.still_mentioned,
            still_mentioned_total: wire.still_mentioned_total,
        })
    }
}

fn check_bounds(wire: &Wire) -> Result<(), &'static str> {
    let lists = wire.by_type.len() <= RESOURCE_TYPES.len() && wire.reasons.len() <= 3 * MAX_REASONS;
    let listed = |listed: usize, total: u64| listed <= MAX_LISTED_ITEMS && listed as u64 <= total;
    if !lists
        || !listed(wire.items.len(), wire.items_total)
        || !listed(wire.unresolved.len(), wire.unresolved_total)
        || !listed(wire.still_mentioned.len(), wire.still_mentioned_total)
    {
        return Err("a list of a loss report is too long, or longer than its total");
    }
    let items = wire.items.iter().flat_map(|item| [&item.resource_type, &item.id, &item.reason]);
    let unresolved = wire.unresolved.iter().flat_map(|reference| [&reference.from, &reference.path, &reference.reason]);
    let reasons = wire.reasons.iter().map(|(_, reason, _)| reason);
    let mut texts = items.chain(unresolved).chain(&wire.still_mentioned).chain(reasons);
    if texts.any(|text| text.len() > MAX_TEXT_BYTES) {
        return Err("a text of a loss report is too long");
    }
    Ok(())
}
