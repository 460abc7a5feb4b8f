//! When to do less and when to do more again. In: how close the agent is to its budgets, and the time. Out: steps.
//!
//! Pure: no clock, no files. One step at a time, each of which has to show its effect before the next. Going back takes
//! longer than giving up, and longer still if the last time was too early.

use std::time::Duration;

use crate::session::{CLASSES, Effort};

/// Over a budget for so long, and so long after the last step, one more is taken.
pub const HOT_FOR: Duration = Duration::from_secs(1);
/// Below all budgets for so long, and so long after the last step, one is taken back.
pub const CALM_FOR: Duration = Duration::from_secs(5);
/// The longest that this gets when it is too early again and again.
pub const LONGEST_CALM: Duration = Duration::from_secs(80);
/// A step that has to be taken again within this time was taken back too early.
const RELAPSE: Duration = Duration::from_secs(30);
/// Of CPU budget and ring, calm is below this share; a step back that lets more in must leave room for it.
const CALM: f64 = 0.7;
/// Of the memory budget, which is steadier and does not grow with a step back at once.
const CALM_MEMORY: f64 = 0.9;

/// How much is given up, mildest first. What one gives up, the next ones do too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    Everything,
    /// Bytes behind the heads.
    Heads,
    /// Patience with what may be another protocol.
    Impatient,
    /// Half of the connections.
    Half,
    /// Seven of eight connections.
    Most,
    /// New processes.
    NoNew,
    /// All connections.
    Nothing,
}

/// Every level, in order.
pub const LEVELS: [Level; 7] = [
    Level::Everything,
    Level::Heads,
    Level::Impatient,
    Level::Half,
    Level::Most,
    Level::NoNew,
    Level::Nothing,
];

impl Level {
    /// What is done at this level.
    pub fn effort(self, reason: Option<Reason>) -> Effort {
        Effort {
            heads_only: self >= Self::Heads,
            impatient: self >= Self::Impatient,
            resting: match self {
                Self::Everything | Self::Heads | Self::Impatient => 0,
                Self::Half => CLASSES / 2,
                Self::Most | Self::NoNew => CLASSES / 8 * 7,
                Self::Nothing => CLASSES,
            },
            at_once: self >= Self::Half && reason == Some(Reason::Memory),
            no_new_processes: self >= Self::NoNew,
        }
    }

    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Everything => "everything is captured",
            Self::Heads => "only heads are shipped, no bodies",
            Self::Impatient => "other protocols are given up sooner",
            Self::Half => "half of the connections rest",
            Self::Most => "seven of eight connections rest",
            Self::NoNew => "seven of eight connections rest and new processes are not followed",
            Self::Nothing => "all connections rest",
        }
    }

    /// By what the load may grow when this level is left for the one below it. Of the last nobody knows: nothing is seen there.
    fn growth(self) -> f64 {
        match self {
            Self::Everything | Self::Nothing => 1.0,
            Self::Heads | Self::Impatient | Self::NoNew => 1.1,
            Self::Half => 2.0,
            Self::Most => 4.0,
        }
    }

    fn up(self) -> Self {
        LEVELS.get(self as usize + 1).copied().unwrap_or(self)
    }

    fn down(self) -> Self {
        LEVELS.get((self as usize).saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Why a step is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// CPU time.
    Cpu,
    /// Resident memory.
    Memory,
    /// The ring of records fills faster than it is emptied.
    Ring,
}

/// Shares of the budgets that are used; 1 is all of it. Zero where there is no budget.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Load {
    /// Of the CPU budget.
    pub cpu: f64,
    /// Part of that which grows with the transfers that are let in: not what the agent takes in any case, nor what new processes
    /// cost.
    pub moving: f64,
    /// Of the memory budget.
    pub memory: f64,
    /// Of what the ring may hold at a look.
    pub ring: f64,
}

impl Load {
    /// The budget that is exceeded most.
    fn exceeded(&self) -> Option<Reason> {
        [(Reason::Cpu, self.cpu), (Reason::Memory, self.memory), (Reason::Ring, self.ring)]
            .into_iter()
            .filter(|(_, share)| *share > 1.0)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(reason, _)| reason)
    }

    fn is_calm(&self, growth: f64) -> bool {
        let then = self.cpu + self.moving.min(self.cpu) * (growth - 1.0);
        then < CALM && self.ring * growth < CALM && self.memory < CALM_MEMORY
    }
}

/// A change of level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The level from now on.
    pub to: Level,
    /// What is exceeded; none for a step back.
    pub reason: Option<Reason>,
}

/// The state between looks.
#[derive(Clone, Debug)]
pub struct Steps {
    level: Level,
    /// Since when a budget is exceeded, or all is calm.
    hot: Option<Duration>,
    calm: Option<Duration>,
    stepped: Duration,
    /// When the last step back was, if none was taken since.
    went_back: Option<Duration>,
    calm_for: Duration,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            level: Level::Everything,
            hot: None,
            calm: None,
            stepped: Duration::ZERO,
            went_back: None,
            calm_for: CALM_FOR,
        }
    }
}

impl Steps {
    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes note of the load at this time, which does not run backwards.
    pub fn observe(&mut self, now: Duration, load: &Load) -> Option<Step> {
        let exceeded = load.exceeded();
        let since = |old: Option<Duration>, holds: bool| holds.then(|| old.unwrap_or(now));
        self.hot = since(self.hot, exceeded.is_some());
        self.calm = since(self.calm, load.is_calm(self.level.growth()));
        let long_enough = |since: Option<Duration>, time: Duration| {
            since.is_some_and(|since| now.saturating_sub(since.max(self.stepped)) >= time)
        };
        if exceeded.is_some() && long_enough(self.hot, HOT_FOR) && self.level != self.level.up() {
            match self.went_back.take() {
                Some(back) if now.saturating_sub(back) <= RELAPSE => {
                    self.calm_for = (self.calm_for * 2).min(LONGEST_CALM);
                }
                _ => {}
            }
            return Some(self.step(now, self.level.up(), exceeded));
        }
        if self.level != Level::Everything && long_enough(self.calm, self.calm_for) {
            // Two steps back in a row: the load is over.
            if self.went_back.is_some() {
                self.calm_for = (self.calm_for / 2).max(CALM_FOR);
            }
            self.went_back = Some(now);
            return Some(self.step(now, self.level.down(), None));
        }
        None
    }

    fn step(&mut self, now: Duration, to: Level, reason: Option<Reason>) -> Step {
        self.level = to;
        self.stepped = now;
        Step { to, reason }
    }
}

#[cfg(test)]
mod tests;
