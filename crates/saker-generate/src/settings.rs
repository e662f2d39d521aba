//! Size and first day of a shop.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// All settings of a shop. The same settings give the same shop, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Seed of every random choice.
    pub seed: u64,
    /// Number of users.
    pub users: usize,
    /// Number of items.
    pub items: usize,
    /// Number of interactions: rows of all days together.
    pub interactions: u64,
    /// Number of days.
    pub days: usize,
    /// The first day, which begins at midnight UTC.
    pub first_day: FirstDay,
}

/// Predefined sizes; each number can be overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 6,000 users, 300,000 interactions: minutes to train.
    Small,
    /// 300,000 users, 13,000,000 interactions.
    Full,
}

impl Settings {
    /// Accepted numbers of users.
    pub const USERS: RangeInclusive<u64> = 100..=10_000_000;
    /// Accepted numbers of items.
    pub const ITEMS: RangeInclusive<u64> = 50..=10_000_000;
    /// Accepted numbers of interactions.
    pub const INTERACTIONS: RangeInclusive<u64> = 1_000..=1_000_000_000;
    /// Accepted numbers of days.
    pub const DAYS: RangeInclusive<u64> = 1..=365;

    /// Settings of a predefined size: 2,465 items and 14 days from Thursday, 2 October 2025, so that the last days are ordinary weekdays.
    pub fn new(scale: Scale) -> Self {
        let (users, interactions) = match scale {
            Scale::Small => (6_000, 300_000),
            Scale::Full => (300_000, 13_000_000),
        };
        Self {
            seed: 1,
            users,
            items: 2_465,
            interactions,
            days: 14,
            first_day: FirstDay::default(),
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Returns an error for the first invalid value, with the accepted range.
    pub fn validate(&self) -> Result<()> {
        let numbers = [
            ("users", self.users as u64, Self::USERS),
            ("items", self.items as u64, Self::ITEMS),
            ("interactions", self.interactions, Self::INTERACTIONS),
            ("days", self.days as u64, Self::DAYS),
        ];
        for (setting, value, accepted) in numbers {
            if !accepted.contains(&value) {
                return Err(Error::Setting {
                    setting,
                    value: value.to_string(),
                    accepted: format!("{} to {}", accepted.start(), accepted.end()),
                });
            }
        }
        Ok(())
    }

    /// The Unix second at which a day begins; day 0 is the first.
    pub fn midnight(&self, day: usize) -> i32 {
        (self.first_day.unix_day() + day as i32) * SECONDS_A_DAY
    }
}

pub(crate) const SECONDS_A_DAY: i32 = 86_400;

/// The first day of a shop, 1971-01-01 to 2036-12-31, so that every timestamp fits an INT32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FirstDay(NaiveDate);

impl FirstDay {
    /// Days since 1970-01-01.
    pub fn unix_day(self) -> i32 {
        (self.0 - NaiveDate::default()).num_days() as i32
    }
}

impl Default for FirstDay {
    fn default() -> Self {
        Self(NaiveDate::default() + chrono::Days::new(20_363))
    }
}

impl FromStr for FirstDay {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        NaiveDate::from_str(text)
            .ok()
            .map(Self)
            .filter(|day| (365..24_472).contains(&day.unix_day()))
            .ok_or_else(|| Error::Setting {
                setting: "first-day",
                value: text.to_owned(),
                accepted: "a day as YYYY-MM-DD, 1971-01-01 to 2036-12-31".to_owned(),
            })
    }
}

impl Display for FirstDay {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl TryFrom<String> for FirstDay {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<FirstDay> for String {
    fn from(day: FirstDay) -> Self {
        day.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_day_is_a_thursday_and_reads_as_it_is_written() -> Result<()> {
        let day = FirstDay::default();
        assert_eq!(day.to_string(), "2025-10-02");
        assert_eq!("2025-10-02".parse::<FirstDay>()?, day);
        // 1970-01-01 was a Thursday too.
        assert_eq!(day.unix_day() % 7, 0);
        assert_eq!(Settings::new(Scale::Small).midnight(1), 1_759_449_600);
        Ok(())
    }

    #[test]
    fn a_refused_setting_says_what_is_accepted() {
        let refused = |change: fn(&mut Settings)| {
            let mut settings = Settings::new(Scale::Small);
            change(&mut settings);
            settings.validate().map_err(|error| error.to_string())
        };
        let text = |text: &str| Err(text.to_owned());
        assert_eq!(refused(|_| ()), Ok(()));
        assert_eq!(
            refused(|settings| settings.users = 0),
            text("users = 0: accepted is 100 to 10000000")
        );
        assert_eq!(
            refused(|settings| settings.days = 366),
            text("days = 366: accepted is 1 to 365")
        );
        assert_eq!(
            refused(|settings| settings.items = 11_000_000),
            text("items = 11000000: accepted is 50 to 10000000")
        );
        assert_eq!(
            refused(|settings| settings.interactions = 999),
            text("interactions = 999: accepted is 1000 to 1000000000")
        );
        for day in ["2037-01-01", "1970-12-31", "2025-02-30", "monday"] {
            let message = day.parse::<FirstDay>().map_err(|error| error.to_string());
            let expected = format!(
                "first-day = {day}: accepted is a day as YYYY-MM-DD, 1971-01-01 to 2036-12-31"
            );
            assert_eq!(message, Err(expected));
        }
    }
}
