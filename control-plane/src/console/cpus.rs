//! What the console tells about pools and vCPUs, and what it can change about them.

use super::management::{ManagementError, Word};
use super::setting::{Parameter, Setting, shorten};
use coproc_core::algorithm::Parameters;
use coproc_core::id::DomainId;
use coproc_core::time::Duration;
use core::fmt;

/// CPUs as the device tree lists them: bit n is CPU n.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpus(pub u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for cpu in (0..u64::BITS).filter(|cpu| self.0.wrapping_shr(*cpu) & 1 != 0) {
            write!(f, "{separator}{cpu}")?;
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("-")
        } else {
            Ok(())
        }
    }
}

/// One pool of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolReport {
    /// Its number.
    pub id: u32,
    /// Its algorithm.
    pub scheduler: &'static str,
    /// Its CPUs.
    pub cpus: Cpus,
    /// How many vCPUs it has.
    pub vcpus: u64,
}

impl fmt::Display for PoolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            scheduler,
            cpus,
            vcpus,
        } = self;
        write!(
            f,
            "pool id={id} scheduler={scheduler} cpus={cpus} vcpus={vcpus}"
        )
    }
}

/// One vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuReport {
    /// Whose it is.
    pub domain: DomainId,
    /// Its number there.
    pub index: usize,
    /// Number of its pool.
    pub pool: u32,
    /// `running`, `ready` (waits for a CPU), `waiting` (for an interrupt), `parked` (on a coprocessor), `off`.
    pub state: &'static str,
    /// The CPU that it has, or had last.
    pub cpu: Option<u32>,
    /// Where it may run.
    pub affinity: Cpus,
    /// What the algorithm was told.
    pub parameters: Parameters,
    /// Time on a CPU.
    pub ran: Duration,
    /// Time ready without one.
    pub waited: Duration,
    /// The longest such time.
    pub longest_wait: Duration,
    /// Times that it got a CPU which had another one before.
    pub switches: u64,
    /// Times that it got another CPU than before.
    pub migrations: u64,
}

impl fmt::Display for VcpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            index,
            pool,
            state,
            ..
        } = self;
        write!(
            f,
            "vcpu domain={domain} index={index} pool={pool} state={state} cpu="
        )?;
        match self.cpu {
            Some(cpu) => write!(f, "{cpu}")?,
            None => f.write_str("-")?,
        }
        write!(
            f,
            " affinity={} weight={}",
            self.affinity, self.parameters.weight
        )?;
        let reserved = [
            ("budget", self.parameters.budget),
            ("period", self.parameters.period),
        ];
        for (key, time) in reserved {
            match time {
                Some(time) => write!(f, " {key}_ns={}", time.as_nanos())?,
                None => write!(f, " {key}_ns=-")?,
            }
        }
        let times = [
            ("ran", self.ran),
            ("waited", self.waited),
            ("longest_wait", self.longest_wait),
        ];
        for (key, time) in times {
            write!(f, " {key}_ns={}", time.as_nanos())?;
        }
        write!(
            f,
            " switches={} migrations={}",
            self.switches, self.migrations
        )
    }
}

/// What `domain set` changes, for all vCPUs of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DomainSetting {
    /// `dN.weight`, `dN.reservation`
    Share(Parameter),
    /// `dN.affinity`: CPUs with commas, or `all`
    Affinity(Cpus),
}

impl DomainSetting {
    /// Reads `dN.NAME` and its value.
    ///
    /// # Errors
    /// [`ManagementError::NoParameter`], [`ManagementError::BadValue`].
    pub fn parse(name: &str, value: &str) -> Result<(DomainId, Self), ManagementError> {
        if let Some(domain) = name.strip_suffix(".affinity") {
            let id = domain
                .strip_prefix('d')
                .and_then(|digits| digits.parse().ok());
            let id = id.ok_or_else(|| ManagementError::NoParameter(shorten(name)))?;
            let cpus = cpus(value).ok_or_else(|| ManagementError::BadValue {
                name: shorten(name),
                value: shorten(value),
                expected: "CPUs with commas, or all",
            })?;
            return Ok((DomainId(id), Self::Affinity(cpus)));
        }
        match Setting::parse(name, value)? {
            Setting::Share(domain, share @ (Parameter::Weight(_) | Parameter::Reservation(_))) => {
                Ok((domain, Self::Share(share)))
            }
            _ => Err(ManagementError::NoParameter(shorten(name))),
        }
    }
}

fn cpus(text: &str) -> Option<Cpus> {
    if text == "all" {
        return Some(Cpus(u64::MAX));
    }
    let mut set = 0_u64;
    for word in text.split(',') {
        let cpu: u32 = word.parse().ok().filter(|cpu| *cpu < u64::BITS)?;
        set |= 1_u64.wrapping_shl(cpu);
    }
    Some(Cpus(set))
}

/// A command about pools or vCPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CpuCommand {
    /// `pool list`
    Pools,
    /// `vcpu list [dN]`
    Vcpus(Option<DomainId>),
    /// `pool set ID scheduler NAME`
    SetPool {
        /// Which pool.
        pool: u32,
        /// The algorithm's name.
        scheduler: Word,
    },
    /// `domain set dN.NAME VALUE`
    SetDomain {
        /// `dN.NAME`.
        name: Word,
        /// Its value.
        value: Word,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn settings_are_read() {
        let us = Duration::from_micros;
        let good = [
            ("d2.weight", "7", DomainSetting::Share(Parameter::Weight(7))),
            (
                "d2.reservation",
                "200/1000",
                DomainSetting::Share(Parameter::Reservation(Some((us(200), us(1000))))),
            ),
            ("d2.affinity", "0,3", DomainSetting::Affinity(Cpus(9))),
            (
                "d2.affinity",
                "all",
                DomainSetting::Affinity(Cpus(u64::MAX)),
            ),
        ];
        for (name, value, expected) in good {
            assert_eq!(
                DomainSetting::parse(name, value),
                Ok((DomainId(2), expected))
            );
        }
        for (name, value, error) in [
            ("d2.priority", "1", "no parameter `d2.priority`"),
            ("slice-us", "1", "no parameter `slice-us`"),
            ("x.affinity", "1", "no parameter `x.affinity`"),
            ("d2.affinity", "0,", "`0,` is no value for d2.affinity"),
            ("d2.affinity", "64", "`64` is no value for d2.affinity"),
            ("d2.weight", "0", "`0` is no value for d2.weight"),
        ] {
            let found = DomainSetting::parse(name, value).unwrap_err().to_string();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
