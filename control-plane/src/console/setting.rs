//! What `coproc set ID NAME VALUE` can change, out of text.

use super::management::{ManagementError, Word};
use coproc_core::algorithm::Parameters;
use coproc_core::id::DomainId;
use coproc_core::time::Duration;

/// Greatest weight of a vcoproc, as in a domain's configuration.
const WEIGHT_LIMIT: u32 = crate::config::domains::WEIGHT_LIMIT;

/// A parameter with its new value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting<'a> {
    /// `slice-us`
    Slice(Duration),
    /// `refusal-bound-us`
    RefusalBound(Duration),
    /// `starvation-bound-us`, `none` for none
    StarvationBound(Option<Duration>),
    /// `scheduler`
    Scheduler(&'a str),
    /// One of a domain's parameters.
    Share(DomainId, Parameter),
}

/// One of a vcoproc's parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parameter {
    /// `dN.weight`
    Weight(u32),
    /// `dN.priority`
    Priority(u32),
    /// `dN.reservation`: budget and period in microseconds as `BUDGET/PERIOD`, or `none`
    Reservation(Option<(Duration, Duration)>),
}

impl Parameter {
    /// The parameters with this one changed.
    #[must_use]
    pub fn apply(self, parameters: Parameters) -> Parameters {
        match self {
            Self::Weight(weight) => Parameters {
                weight,
                ..parameters
            },
            Self::Priority(priority) => Parameters {
                priority,
                ..parameters
            },
            Self::Reservation(reservation) => Parameters {
                budget: reservation.map(|(budget, _)| budget),
                period: reservation.map(|(_, period)| period),
                ..parameters
            },
        }
    }
}

impl<'a> Setting<'a> {
    /// Reads a parameter's name and value.
    ///
    /// # Errors
    /// [`ManagementError::NoParameter`], [`ManagementError::BadValue`].
    pub fn parse(name: &str, value: &'a str) -> Result<Self, ManagementError> {
        let bad = |expected| ManagementError::BadValue {
            name: shorten(name),
            value: shorten(value),
            expected,
        };
        let time = || microseconds(value).ok_or(bad("microseconds, at least 1"));
        match name {
            "slice-us" => return Ok(Self::Slice(time()?)),
            "refusal-bound-us" => return Ok(Self::RefusalBound(time()?)),
            "starvation-bound-us" if value == "none" => return Ok(Self::StarvationBound(None)),
            "starvation-bound-us" => return Ok(Self::StarvationBound(Some(time()?))),
            "scheduler" => return Ok(Self::Scheduler(value)),
            _ => {}
        }
        let unknown = || ManagementError::NoParameter(shorten(name));
        let (domain, parameter) = name.split_once('.').ok_or_else(unknown)?;
        let domain = domain
            .strip_prefix('d')
            .and_then(|digits| digits.parse().ok())
            .map(DomainId);
        let domain = domain.ok_or_else(unknown)?;
        let parameter = match parameter {
            "weight" => {
                let weight = value
                    .parse()
                    .ok()
                    .filter(|weight| (1..=WEIGHT_LIMIT).contains(weight));
                Parameter::Weight(weight.ok_or(bad("a weight of 1 to 10000"))?)
            }
            "priority" => Parameter::Priority(
                value
                    .parse()
                    .map_err(|_| bad("a number, the higher the sooner"))?,
            ),
            "reservation" if value == "none" => Parameter::Reservation(None),
            "reservation" => {
                let pair = value.split_once('/').and_then(|(budget, period)| {
                    Some((microseconds(budget)?, microseconds(period)?))
                        .filter(|(budget, period)| budget <= period)
                });
                Parameter::Reservation(Some(
                    pair.ok_or(bad("BUDGET/PERIOD in microseconds, or none"))?,
                ))
            }
            _ => return Err(unknown()),
        };
        Ok(Self::Share(domain, parameter))
    }
}

fn microseconds(text: &str) -> Option<Duration> {
    let number: u32 = text.parse().ok()?;
    (number > 0).then(|| Duration::from_micros(u64::from(number)))
}

/// As much of `text` as a [`Word`] holds.
pub fn shorten(text: &str) -> Word {
    let mut word = Word::new();
    for letter in text.chars() {
        if word.try_push(letter).is_err() {
            break;
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, value: &str) -> alloc::string::String {
        alloc::format!("{}", Setting::parse(name, value).unwrap_err())
    }

    #[test]
    fn every_parameter_is_read() {
        let us = Duration::from_micros;
        let share = |parameter| Ok(Setting::Share(DomainId(2), parameter));
        assert_eq!(
            Setting::parse("slice-us", "5000"),
            Ok(Setting::Slice(us(5000)))
        );
        assert_eq!(
            Setting::parse("refusal-bound-us", "1"),
            Ok(Setting::RefusalBound(us(1)))
        );
        assert_eq!(
            Setting::parse("starvation-bound-us", "none"),
            Ok(Setting::StarvationBound(None))
        );
        assert_eq!(
            Setting::parse("starvation-bound-us", "7"),
            Ok(Setting::StarvationBound(Some(us(7))))
        );
        assert_eq!(
            Setting::parse("scheduler", "rr"),
            Ok(Setting::Scheduler("rr"))
        );
        assert_eq!(
            Setting::parse("d2.weight", "10000"),
            share(Parameter::Weight(10_000))
        );
        assert_eq!(
            Setting::parse("d2.priority", "0"),
            share(Parameter::Priority(0))
        );
        let reserved = Parameter::Reservation(Some((us(3), us(10))));
        assert_eq!(Setting::parse("d2.reservation", "3/10"), share(reserved));
        assert_eq!(
            Setting::parse("d2.reservation", "none"),
            share(Parameter::Reservation(None))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error("slice", "1").contains("no parameter `slice`"));
        assert!(error("x1.weight", "1").contains("no parameter"));
        assert!(error("d1.weights", "1").contains("no parameter"));
        assert!(
            error("d1.weight", "0")
                .contains("`0` is no value for d1.weight, expected a weight of 1")
        );
        assert!(error("d1.reservation", "10/3").contains("expected BUDGET/PERIOD"));
        assert!(error("slice-us", "99999999999").contains("expected microseconds"));
    }

    #[test]
    fn one_parameter_leaves_the_others_alone() {
        let before = Parameters {
            weight: 3,
            priority: 2,
            budget: None,
            period: None,
        };
        let after =
            Parameter::Reservation(Some((Duration::from_micros(1), Duration::from_micros(2))))
                .apply(before);
        assert_eq!((after.weight, after.priority), (3, 2));
        assert_eq!(after.period, Some(Duration::from_micros(2)));
        assert_eq!(Parameter::Reservation(None).apply(after), before);
        assert_eq!(Parameter::Priority(9).apply(before).priority, 9);
    }
}
