//! Pure functions over slices: the arithmetic of every operator, without allocation.
//!
//! Input and output have the same length; where they differ, the shorter decides. Missing values are NaN in floats; integers have
//! none here, the caller replaces the output of a null row.

use std::cmp::Ordering;
use std::f64::consts::PI;

use crate::definition::TimeUnit;

/// A number a kernel can read.
pub trait Number: Copy + PartialOrd {
    /// The value in float64.
    fn to_f64(self) -> f64;
    /// The value in float32.
    fn to_f32(self) -> f32;
    /// Its bits as an unsigned integer, not sign-extended.
    fn bits(self) -> u64;
    /// Whether it is NaN.
    fn is_missing(self) -> bool;
    /// (x - offset) / scale; float32 in its own arithmetic, everything else in float64.
    fn scaled(self, offset: f64, scale: f64) -> f64;
    /// x - y; float32 in its own arithmetic, everything else in float64.
    fn difference(self, other: Self) -> f64;
    /// The nearest value of this type to a float64, without its fraction for integers.
    fn from_f64(value: f64) -> Self;
}

macro_rules! number {
    ($type:ty, $bits:expr, $missing:expr, $wide:ty) => {
        impl Number for $type {
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline]
            fn bits(self) -> u64 {
                $bits(self)
            }
            #[inline]
            fn is_missing(self) -> bool {
                $missing(self)
            }
            #[inline]
            fn scaled(self, offset: f64, scale: f64) -> f64 {
                ((self as $wide - offset as $wide) / scale as $wide) as f64
            }
            #[inline]
            fn difference(self, other: Self) -> f64 {
                (self as $wide - other as $wide) as f64
            }
            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
        }
    };
}

number!(i32, |x: i32| u64::from(x as u32), |_| false, f64);
number!(i64, |x: i64| x as u64, |_| false, f64);
number!(f32, |x: f32| u64::from(x.to_bits()), f32::is_nan, f32);
number!(f64, f64::to_bits, f64::is_nan, f64);

/// Writes `f` of every element.
#[inline]
pub fn map<T: Copy, U>(input: &[T], output: &mut [U], f: impl Fn(T) -> U) {
    for (out, &x) in output.iter_mut().zip(input) {
        *out = f(x);
    }
}

/// (x - mean) / std, or x - mean where std is not positive.
pub fn normalize<T: Number, U: Number>(input: &[T], mean: f64, std: f64, output: &mut [U]) {
    let scale = if std > 0.0 { std } else { 1.0 };
    map(input, output, |x| U::from_f64(x.scaled(mean, scale)));
}

/// (x - min) / (max - min); 0.5 where min = max; NaN stays.
pub fn normalize_min_max<T: Number, U: Number>(input: &[T], min: f64, max: f64, output: &mut [U]) {
    let range = max - min;
    if range > 0.0 {
        map(input, output, |x| U::from_f64(x.scaled(min, range)));
    } else {
        map(input, output, |x| {
            U::from_f64(if x.is_missing() { f64::NAN } else { 0.5 })
        });
    }
}

/// ln(x + 1) in float32, bit for bit as NumPy's vectorised logarithm ([`ln`]).
pub fn log<T: Number>(input: &[T], output: &mut [f32]) {
    map(input, output, |x| ln(x.to_f32() + 1.0));
}

/// The natural logarithm as NumPy computes it for float32 arrays on x86: x = 2^e · m with m in (√½, √2], ln m by the
/// quotient of two polynomials in m - 1, within 4 units in the last place. A model sees in serving the bits it was trained
/// on with NVTabular. 0 gives -inf, less gives NaN.
#[inline]
pub fn ln(x: f32) -> f32 {
    // Highest power first.
    const NUMERATOR: [f32; 6] = [
        0.025_899_792,
        0.380_883_78,
        1.480_000_6,
        2.112_677_6,
        1.0,
        0.0,
    ];
    const DENOMINATOR: [f32; 6] = [
        0.005_875_095_3,
        0.154_647_63,
        0.986_494_3,
        2.453_006,
        2.612_677_6,
        1.0,
    ];
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x == f32::INFINITY {
        return x;
    }
    // Below the normal range the exponent is not in the bits: scale first.
    let (x, scaled) = if x < f32::MIN_POSITIVE {
        (x * 8_388_608.0, 23)
    } else {
        (x, 0)
    };
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as i32 - 127 - scaled;
    let mut mantissa = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000);
    if mantissa > std::f32::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let z = mantissa - 1.0;
    let polynomial = |coefficients: &[f32; 6]| {
        coefficients[1..]
            .iter()
            .fold(coefficients[0], |sum, &c| fused(sum, z, c))
    };
    let fraction = polynomial(&NUMERATOR) / polynomial(&DENOMINATOR);
    fused(exponent as f32, std::f32::consts::LN_2, fraction)
}

/// a · b + c, rounded once: the product of two float32 is exact in float64.
#[inline]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// The number of ascending boundaries ≤ x; NaN counts as greater than all.
pub fn bucketize<T: Number>(input: &[T], boundaries: &[f64], output: &mut [i32]) {
    map(input, output, |x| {
        let x = x.to_f64();
        // Not `boundary <= x`: NaN must count every boundary.
        #[allow(clippy::neg_cmp_op_on_partial_ord)]
        let count = if boundaries.len() <= 16 {
            boundaries.iter().filter(|&&b| !(x < b)).count()
        } else {
            boundaries.partition_point(|&b| !(x < b))
        };
        count as i32
    });
}

/// Limits x to [min, max]; NaN stays.
pub fn clip<T: Number>(input: &[T], min: Option<T>, max: Option<T>, output: &mut [T]) {
    map(input, output, |mut x| {
        if let Some(min) = min
            && x < min
        {
            x = min;
        }
        if let Some(max) = max
            && x > max
        {
            x = max;
        }
        x
    });
}

/// How an integer compares with a float64, without rounding the integer.
pub fn order(x: i64, value: f64) -> Option<Ordering> {
    if value.is_nan() {
        return None;
    }
    // Both bounds are powers of two, which float64 holds.
    if value >= i64::MAX as f64 {
        return Some(Ordering::Less);
    }
    if value < i64::MIN as f64 {
        return Some(Ordering::Greater);
    }
    let whole = value.floor();
    Some(match x.cmp(&(whole as i64)) {
        Ordering::Equal if value > whole => Ordering::Less,
        order => order,
    })
}

/// Replaces NaN.
pub fn fill<T: Number>(input: &[T], value: T, output: &mut [T]) {
    map(input, output, |x| if x.is_missing() { value } else { x });
}

/// A part of the date or of the time of day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePart {
    /// Hour of the day, 0 to 23.
    Hour,
    /// Day of the week, Monday = 0.
    Weekday,
    /// Day of the month, 1 to 31.
    Day,
    /// Month of the year, 1 to 12.
    Month,
}

/// A part of integers that count time since 1970 in `unit`.
pub fn time_part<T: Into<i64> + Copy>(
    input: &[T],
    part: TimePart,
    unit: TimeUnit,
    output: &mut [i32],
) {
    // Divisions by a constant, each compiled for its unit.
    match unit {
        TimeUnit::S => part_of::<1, T>(input, part, output),
        TimeUnit::Ms => part_of::<1_000, T>(input, part, output),
        TimeUnit::Us => part_of::<1_000_000, T>(input, part, output),
        TimeUnit::Ns => part_of::<1_000_000_000, T>(input, part, output),
    }
}

fn part_of<const PER_SECOND: i64, T: Into<i64> + Copy>(
    input: &[T],
    part: TimePart,
    output: &mut [i32],
) {
    let days = |t: T| t.into().div_euclid(86_400 * PER_SECOND);
    match part {
        TimePart::Hour => map(input, output, |t| {
            t.into().div_euclid(3_600 * PER_SECOND).rem_euclid(24) as i32
        }),
        // 1 January 1970 was a Thursday.
        TimePart::Weekday => map(input, output, |t| (days(t) + 3).rem_euclid(7) as i32),
        TimePart::Day => map(input, output, |t| month_and_day(days(t)).1),
        TimePart::Month => map(input, output, |t| month_and_day(days(t)).0),
    }
}

/// Month and day of the Gregorian calendar, of days since 1970.
fn month_and_day(days: i64) -> (i32, i32) {
    // The calendar repeats after 400 years. Its years are taken from March, so that the leap day is the last of a year.
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const MARCH_2000: i64 = 11_017;
    let day = (days - MARCH_2000).rem_euclid(DAYS_OF_400_YEARS);
    // Each 4 years have a leap day but for the centuries, each 400 years have one again.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // From March, five months have 153 days, again and again.
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (month as i32, day_of_month as i32)
}

/// sin(2π x / period), computed in float64.
pub fn sine<T: Number>(input: &[T], period: f64, output: &mut [f32]) {
    map(input, output, |x| {
        (2.0 * PI * x.to_f64() / period).sin() as f32
    });
}

/// cos(2π x / period), computed in float64.
pub fn cosine<T: Number>(input: &[T], period: f64, output: &mut [f32]) {
    map(input, output, |x| {
        (2.0 * PI * x.to_f64() / period).cos() as f32
    });
}

/// The row `shift` before `row`, if there is one.
#[inline]
pub fn lagged(row: usize, shift: i64, rows: usize) -> Option<usize> {
    let other = (row as i64).checked_sub(shift)?;
    usize::try_from(other).ok().filter(|&other| other < rows)
}

/// x - (x of the row `shift` before); NaN where there is none.
pub fn difference_lag<T: Number>(input: &[T], shift: i64, output: &mut [f32]) {
    for (row, out) in output.iter_mut().enumerate().take(input.len()) {
        let other = lagged(row, shift, input.len()).and_then(|other| input.get(other));
        *out = match (input.get(row), other) {
            (Some(x), Some(&other)) => x.difference(other) as f32,
            _ => f32::NAN,
        };
    }
}
