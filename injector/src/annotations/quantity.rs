//! Amounts of CPU and memory, read and written as Kubernetes writes them.

use std::fmt;

/// What an amount is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a CPU.
    Cpu,
    /// Bytes.
    Memory,
}

/// An amount. Shown as the API server would write it, so that it never changes on its way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    amount: u64,
    unit: Unit,
    /// Written with powers of 1024 where one fits.
    binary: bool,
}

const DECIMAL: [(&str, u64); 6] = [
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];
const BINARY: [(&str, u64); 5] = [
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
];
/// Digits that a number may have: more than any amount needs.
const MAX_DIGITS: usize = 15;

impl Quantity {
    /// `amount` in the unit's smallest part.
    #[must_use]
    pub const fn new(amount: u64, unit: Unit) -> Self {
        Self {
            amount,
            unit,
            binary: matches!(unit, Unit::Memory),
        }
    }

    /// In the unit's smallest part.
    #[must_use]
    pub const fn amount(self) -> u64 {
        self.amount
    }

    /// # Errors
    /// In words, if it is no amount of this unit, or none at all.
    pub fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        let example = match unit {
            Unit::Cpu => "100m or 0.5",
            Unit::Memory => "64Mi or 1G",
        };
        let wrong = || format!("is not an amount, as in {example}: correct it");
        let digits = text
            .find(|char: char| !char.is_ascii_digit() && char != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at_checked(digits).ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || number.len() > MAX_DIGITS {
            return Err(wrong());
        }
        let factor = |table: &[(&str, u64)]| {
            table
                .iter()
                .find(|(name, _)| *name == suffix)
                .map(|(_, factor)| u128::from(*factor))
        };
        let (binary, factor) = match (unit, suffix) {
            (Unit::Cpu, "m") => (false, 1),
            (Unit::Cpu, "") => (false, 1000),
            (Unit::Cpu, _) => return Err(wrong()),
            (Unit::Memory, _) => match factor(&BINARY) {
                Some(factor) => (true, factor),
                None => (false, factor(&DECIMAL).ok_or_else(wrong)?),
            },
        };
        let mut scaled = 0u128;
        let mut below = 1u128;
        for digit in whole.bytes() {
            scaled = scaled * 10 + u128::from(digit.saturating_sub(b'0'));
        }
        for digit in fraction.bytes() {
            if digit == b'.' {
                return Err(wrong());
            }
            scaled = scaled * 10 + u128::from(digit.saturating_sub(b'0'));
            below *= 10;
        }
        // as Kubernetes does: what is smaller than the smallest part is rounded up
        let amount = (scaled * factor).div_ceil(below);
        match u64::try_from(amount) {
            Ok(0) => Err("is nothing: write an amount above zero, or leave it out".to_owned()),
            Ok(amount) => Ok(Self {
                amount,
                unit,
                binary,
            }),
            Err(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { amount, unit, .. } = *self;
        if unit == Unit::Cpu {
            return if amount.is_multiple_of(1000) {
                write_largest(f, amount / 1000, &DECIMAL)
            } else {
                write!(f, "{amount}m")
            };
        }
        if self.binary
            && let Some((suffix, factor)) = BINARY
                .iter()
                .find(|(_, factor)| amount.is_multiple_of(*factor))
        {
            return write!(f, "{}{suffix}", amount / factor);
        }
        if self.binary {
            return write!(f, "{amount}");
        }
        write_largest(f, amount, &DECIMAL)
    }
}

fn write_largest(f: &mut fmt::Formatter<'_>, amount: u64, table: &[(&str, u64)]) -> fmt::Result {
    match table
        .iter()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
    {
        Some((suffix, factor)) => write!(f, "{}{suffix}", amount / factor),
        None => write!(f, "{amount}"),
    }
}
