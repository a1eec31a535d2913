//! Whether one scope lets nothing travel that another does not: how the limits of a consent key are held.

use super::{LabelRule, Scope, TypeRule};

impl Scope {
    /// Whether everything that this scope allows is allowed by `limit` too; a pure function of the two rules, whatever a record holds.
    ///
    /// Security: errs towards `false`. A list of all but some types lies within no list of types, even if it names the same ones.
    #[must_use]
    pub fn is_within(&self, limit: &Self) -> bool {
        let dates = limit.from.is_none_or(|from| self.from.is_some_and(|own| own >= from))
            && limit.to.is_none_or(|to| self.to.is_some_and(|own| own <= to));
        let undated = limit.undated || !self.undated;
        self.types.is_within(&limit.types) && dates && undated && self.labels.is_within(&limit.labels)
    }
}

impl TypeRule {
    fn is_within(&self, limit: &Self) -> bool {
        match (self, limit) {
            (_, Self::All) => true,
            (Self::Only(own), Self::Only(limit)) => own.iter().all(|name| limit.contains(name)),
            (Self::Only(own), Self::Except(except)) => !own.iter().any(|name| except.contains(name)),
            (Self::Except(own), Self::Except(except)) => except.iter().all(|name| own.contains(name)),
            (Self::All, _) | (Self::Except(_), Self::Only(_)) => false,
        }
    }
}

impl LabelRule {
    fn is_within(&self, limit: &Self) -> bool {
        match (self, limit) {
            (_, Self::All) => true,
            (Self::All, Self::Only { .. }) => false,
            (Self::Only { unlabelled, codes }, Self::Only { unlabelled: limit, codes: allowed }) => {
                (*limit || !unlabelled) && codes.iter().all(|code| allowed.contains(code))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ResourceFacts;
    use crate::scope::Decision;
    use crate::types::ResourceType;
    use proptest::prelude::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn narrower_is_within_and_wider_is_not() {
        for (own, limit) in [
            ("types=*;labels=*", "types=*;labels=*"),
            ("types=Immunization", "types=Immunization,Observation"),
            ("types=Immunization", "types=!Condition"),
            ("types=!Condition,!Observation", "types=!Condition"),
            ("types=*;from=2016-01-01;to=2017", "types=*;from=2015;to=2018"),
            ("types=*;labels=N", "types=*;labels=N,none"),
        ] {
            assert!(scope(own).is_within(&scope(limit)), "{own} within {limit}");
        }
        for (own, limit) in [
            ("types=*;labels=*", "types=*"),
            ("types=*", "types=!Condition"),
            ("types=!Condition", "types=Immunization"),
            ("types=Condition", "types=!Condition"),
            ("types=!Condition", "types=!Condition,!Observation"),
            ("types=*", "types=*;from=2015"),
            ("types=*;from=2014", "types=*;from=2015"),
            ("types=*;to=2019", "types=*;to=2018"),
            ("types=*;from=2016;undated=include", "types=*;from=2015"),
            ("types=*;labels=none", "types=*;labels=N"),
            ("types=*;labels=R", "types=*;labels=N,none"),
        ] {
            assert!(!scope(own).is_within(&scope(limit)), "{own} not within {limit}");
        }
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        let types = prop_oneof![
            Just("types=*"),
            Just("types=Observation"),
            Just("types=Observation,Condition"),
            Just("types=!Condition"),
            Just("types=!Condition,!Flag")
        ];
        let dates =
            prop_oneof![Just(""), Just(";from=2015"), Just(";from=2016;to=2018"), Just(";to=2018;undated=include")];
        let labels = prop_oneof![Just(""), Just(";labels=*"), Just(";labels=N"), Just(";labels=none,R")];
        (types, dates, labels).prop_map(|(types, dates, labels)| scope(&format!("{types}{dates}{labels}")))
    }

    proptest! {
        #[test]
        fn what_lies_within_lets_nothing_more_travel(
            own in any_scope(), limit in any_scope(), kind in 0usize..4, year in 2013u32..2021, dated in any::<bool>(), label in 0usize..4,
        ) {
            let facts = ResourceFacts {
                resource_type: ResourceType::parse(["Observation", "Condition", "Flag", "Patient"][kind]).unwrap(),
                clinical_date: dated.then(|| crate::dates::Day::from_number(year * 10_000 + 601).unwrap()),
                labels: [vec![], vec!["N".to_owned()], vec!["R".to_owned()], vec!["N".to_owned(), "R".to_owned()]][label].clone(),
            };
            if own.is_within(&limit) && own.decide(&facts) == Decision::InScope {
                prop_assert_eq!(limit.decide(&facts), Decision::InScope);
            }
        }
    }
}
