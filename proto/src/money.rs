//! Money as whole minor units: no floating point, no silent overflow.

use std::fmt;

/// An ISO 4217 code: three capital letters. Whether it is assigned is the gateway's to say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// An amount in minor units of its currency: 1999 EUR is 19.99 euros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    /// Minor units.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

/// What cannot be reckoned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not three capital letters.
    #[error("`{0}` is no currency: three capital letters are")]
    NoCurrency(String),
    /// Two currencies in one sum.
    #[error("{0} and {1} do not add up")]
    Mixed(Currency, Currency),
    /// Beyond `i64`.
    #[error("the amount is too large")]
    Overflow,
}

impl Currency {
    /// Takes three capital letters.
    ///
    /// # Errors
    /// [`MoneyError::NoCurrency`] for anything else.
    pub fn new(code: &str) -> Result<Currency, MoneyError> {
        match code.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Currency([a, b, c])),
            _ => Err(MoneyError::NoCurrency(code.chars().take(16).collect())),
        }
    }

    /// The three letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("capital letters are ASCII")
    }
}

impl Money {
    /// So many minor units.
    pub fn new(minor: i64, currency: Currency) -> Money {
        Money { minor, currency }
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::Mixed`], [`MoneyError::Overflow`].
    pub fn plus(self, other: Money) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed(self.currency, other.currency));
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, ..self })
    }

    /// So many times the amount.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn times(self, count: u32) -> Result<Money, MoneyError> {
        let minor = self.minor.checked_mul(count.into()).ok_or(MoneyError::Overflow)?;
        Ok(Money { minor, ..self })
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Money {
    /// In minor units: how many of them make a major one differs by currency.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.minor, self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_never_wraps_and_never_mixes() {
        let eur = Currency::new("EUR").unwrap();
        let usd = Currency::new("USD").unwrap();
        assert_eq!(Money::new(1999, eur).times(3), Ok(Money::new(5997, eur)));
        assert_eq!(Money::new(i64::MAX, eur).plus(Money::new(1, eur)), Err(MoneyError::Overflow));
        assert_eq!(Money::new(i64::MAX, eur).times(2), Err(MoneyError::Overflow));
        assert_eq!(Money::new(1, eur).plus(Money::new(1, usd)), Err(MoneyError::Mixed(eur, usd)));
        assert!(Currency::new("eur").is_err());
    }
}
