//! Which day is a line of that says a time of day only? The one that the last directive above it says (W3C `#Date`), and
//! the next after each midnight that the times pass.
//!
//! Times mostly grow from line to line. One that is earlier by hours is of the next day; one just before midnight, below one
//! just after it, is late and of the day before.
//!
//! How a block's lines follow each other is the same whenever they are read. What its first line follows is not at hand when
//! the block is read again, so its day is noted with its place, wherever it differs from the one noted before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::places::Places;
use crate::time::{MICROS_PER_SECOND, Micros};

const DAY: Micros = 86_400 * MICROS_PER_SECOND;

/// Times that are earlier by more than this are of the next day. Clocks that are put back go back by an hour, and lines may
/// be late.
const BACK: Micros = 7200 * MICROS_PER_SECOND;

/// How late a line is at most that is written behind one of the next day.
const LATE: Micros = 600 * MICROS_PER_SECOND;

/// The days of a stream.
pub struct Days {
    noted: Places<i64>,
    /// Where each partition was left, and on what day. No more of them than places are noted.
    left: BTreeMap<String, (u64, Day)>,
    most: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Day {
    /// Since 1970.
    number: i64,
    /// The time of day of the line above; unknown in a block that is read again.
    time: Option<Micros>,
}

/// What a checkpoint keeps of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Saved {
    noted: Vec<(String, u64, i64)>,
    left: BTreeMap<String, (u64, Day)>,
}

impl Days {
    /// Notes at most `most` places.
    pub fn new(most: usize) -> Days {
        Days { noted: Places::new(most), left: BTreeMap::new(), most }
    }

    /// Goes on where a partition was left, or where it was when the line at `offset` was first read.
    pub fn today<'a>(&'a mut self, partition: &'a str, offset: u64) -> Today<'a> {
        let noted = |number: &i64| Day { number: *number, time: None };
        let day = match self.left.get(partition) {
            Some((at, day)) if *at < offset => Some(*day),
            Some(_) | None => self.noted.above(partition, offset).map(noted),
        };
        Today { days: self, partition, day, seen: None, is_noted: false }
    }

    pub fn save(&self) -> Saved {
        let noted = self.noted.iter().map(|(partition, offset, number)| (partition.to_string(), offset, *number));
        Saved { noted: noted.collect(), left: self.left.clone() }
    }

    /// Goes on from what was known once.
    pub fn recall(&mut self, saved: Saved) {
        for (partition, offset, number) in saved.noted {
            self.noted.note(&partition, offset, number);
        }
        self.left = saved.left;
    }
}

/// The day at hand, while the lines of a block are read from top to bottom.
pub struct Today<'a> {
    days: &'a mut Days,
    partition: &'a str,
    day: Option<Day>,
    /// The last line that said anything of it.
    seen: Option<u64>,
    /// Whether the day of the block's first line was noted.
    is_noted: bool,
}

impl Today<'_> {
    /// Takes in a directive at `offset`, which says date and time as clocks showed it, in microseconds since 1970.
    pub fn directed(&mut self, offset: u64, local: Micros) {
        self.day = Some(Day { number: local.div_euclid(DAY), time: Some(local.rem_euclid(DAY)) });
        self.seen = Some(offset);
    }

    /// What clocks showed when the line at `offset` says `time` of day, in microseconds; `None` when nothing said the day.
    pub fn at(&mut self, offset: u64, time: Micros) -> Option<Micros> {
        let day = self.day.as_mut()?;
        match day.time {
            Some(above) if above - time > BACK => day.number += 1,
            Some(above) if above < LATE && time >= DAY - LATE => day.number -= 1,
            Some(_) | None => {}
        }
        day.time = Some(time);
        if !self.is_noted && self.days.noted.above(self.partition, offset) != Some(&day.number) {
            self.days.noted.note(self.partition, offset, day.number);
        }
        (self.is_noted, self.seen) = (true, Some(offset));
        Some(day.number * DAY + time)
    }

    /// Keeps the day for the lines of the next block.
    pub fn leave(self) {
        let (Some(seen), Some(day)) = (self.seen, self.day) else { return };
        let left = &mut self.days.left;
        if left.get(self.partition).is_some_and(|(at, _)| *at >= seen) {
            return; // this block was read again
        }
        left.insert(self.partition.to_string(), (seen, day));
        if left.len() > self.days.most
            && let Some(oldest) = left.iter().min_by_key(|(_, (at, _))| *at).map(|(partition, _)| partition.clone())
        {
            left.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Micros = 60 * MICROS_PER_SECOND;

    /// The days on which lines of a block that begins at `offset` are, whose times of day are given in minutes. A line that
    /// is a day and a time is a directive.
    fn read(days: &mut Days, partition: &str, offset: u64, lines: &[(Option<i64>, i64)]) -> Vec<Option<i64>> {
        let mut today = days.today(partition, offset);
        let mut found = Vec::new();
        for (at, (day, minutes)) in (offset..).zip(lines) {
            match day {
                Some(day) => today.directed(at, day * DAY + minutes * MINUTE),
                None => found.push(today.at(at, minutes * MINUTE).map(|moment| moment.div_euclid(DAY))),
            }
        }
        today.leave();
        found
    }

    /// The last two minutes of a day, and its first ones.
    const BEFORE: i64 = 1438;
    const LAST: i64 = 1439;
    const FIRST: i64 = 0;
    const THEN: i64 = 1;

    #[test]
    fn days_pass_at_midnight() {
        let mut days = Days::new(10);
        let time = |minutes: i64| (None, minutes);
        assert_eq!(read(&mut days, "a", 0, &[time(5)]), [None]);
        let lines =
            [(Some(7), BEFORE), time(LAST), time(FIRST), time(LAST), time(THEN), time(720), time(700), time(LAST)];
        let expected = [7, 8, 7, 8, 8, 8, 8].map(Some);
        assert_eq!(read(&mut days, "a", 1, &lines), expected);
        // Other partitions have days of their own; a directive alone is enough; not all that is earlier is of the next day.
        assert!(read(&mut days, "b", 9, &[(Some(3), LAST)]).is_empty());
        assert_eq!(read(&mut days, "b", 10, &[time(FIRST), time(300), time(200), time(LAST)]), [4, 4, 4, 4].map(Some));
    }

    #[test]
    fn blocks_are_of_the_same_days_when_they_are_read_again() {
        let mut days = Days::new(10);
        let time = |minutes: i64| (None, minutes);
        let blocks = [
            vec![(Some(7), BEFORE), time(LAST)],
            vec![time(FIRST), time(LAST)],
            vec![time(THEN), time(5)],
            vec![time(LAST), time(6)], // late, and the first of its block
            vec![time(LAST)],
            vec![time(7), (Some(20), 8), time(9)],
            vec![time(10)],
        ];
        let all = |days: &mut Days| {
            let block = |(i, block): (usize, &Vec<_>)| read(days, "a", i as u64 * 10, block);
            blocks.iter().enumerate().flat_map(block).collect::<Vec<_>>()
        };
        let expected = [7, 8, 7, 8, 8, 7, 8, 7, 8, 20, 20].map(Some);
        assert_eq!(all(&mut days), expected);
        assert_eq!(all(&mut days), expected, "again");
        let saved = serde_json::to_value(days.save()).unwrap();
        let mut recalled = Days::new(10);
        recalled.recall(serde_json::from_value(saved).unwrap());
        assert_eq!(all(&mut recalled), expected, "by another process");
        assert_eq!(read(&mut recalled, "a", 100, &[time(11)]), [Some(20)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut days = Days::new(3);
        for i in 0..9 {
            let partition = (i % 5).to_string();
            assert_eq!(read(&mut days, &partition, i * 10, &[(Some(1), 0), (None, 1)]), [Some(1)]);
        }
        assert_eq!((days.noted.len(), days.left.len()), (3, 3));
    }
}
