//! The thread that looks at files and attaches. Comes in: what happens to traced processes. Goes out: probes, and news for the thread
//! that reads the ring. A file of 200 MB, or a kernel that waits before it changes code, must not hold the ring up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::files::Files;
use super::{Instrument, Need};
use crate::kernel::hazard::{Feature, Hazards};
use crate::kernel::load::Kernel;
use crate::kernel::privilege;
use crate::kernel::uprobe::Probes;
use crate::kernel::usage;
use crate::placement::Rules;
use crate::telemetry::{Flow, Stage};

/// Tasks that may wait. What comes when so many wait is not looked at, and counted.
const WAITING: usize = 16 * 1024;
/// How often what is no longer used is taken away.
const TIDY: Duration = Duration::from_millis(500);

/// What happened to a process.
pub(super) enum Task {
    /// A program that is going to be started.
    Expected(PathBuf),
    Started(u32),
    Forked {
        parent: u32,
        child: u32,
    },
    Became(u32),
    /// It may have mapped code; `more` if it surely has.
    Mapped {
        tgid: u32,
        more: bool,
    },
    Ended(u32),
    /// Its program's probes for later are needed, or they are not.
    More(u32, Need),
    Less(u32, Need),
    /// Answer when everything before is done.
    Settle(SyncSender<()>),
}

/// What the thread that reads the ring should know.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These bits of `config::proc` are now right for the process, of those in `of`.
    Bits {
        /// Process.
        tgid: u32,
        /// Those that are set.
        set: u32,
        /// Those that are set or not.
        of: u32,
    },
    /// A sentence for whoever started the agent.
    Said(String),
}

/// What has been done.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) wanted: AtomicU64,
    pub(super) attached: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) sites: AtomicU64,
}

impl Account {
    pub(super) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }
}

/// The stage, as the thread that reads the ring holds it.
pub struct Instruments {
    tasks: Option<Sender<Task>>,
    waiting: Arc<AtomicU64>,
    news: Receiver<News>,
    thread: Option<JoinHandle<()>>,
    id: Option<i32>,
    perf_events: bool,
    account: Arc<Account>,
}

/// Programs that instruments attach, each once.
fn programs(instruments: &[Arc<dyn Instrument>]) -> Vec<&'static str> {
    let mut programs: Vec<_> = instruments.iter().flat_map(|one| one.programs()).copied().collect();
    programs.sort_unstable();
    programs.dedup();
    programs
}

/// Loads the programs of all instruments and attaches none, so that what the kernel says of them can be told.
pub fn try_programs(kernel: &mut Kernel) {
    let instruments = super::all();
    let names = programs(&instruments);
    let probes = kernel.load_probes(&names);
    if probes.lacking().is_some() {
        return;
    }
    for name in names {
        if let Some(why) = probes.refusal(name) {
            let users = instruments.iter().filter(|one| one.programs().contains(&name));
            let users = users.map(|one| one.name()).collect::<Vec<_>>().join(" or ");
            kernel.losses.push(format!(
                "program {name} does not load ({why}): files where {users} needs it get no probes"
            ));
        }
    }
}

impl Instruments {
    /// Loads what the instruments need, and starts the thread. To be called before the agent gives up its privileges.
    #[must_use]
    pub fn load(kernel: &mut Kernel) -> Self {
        let instruments = super::all();
        let rules = Rules::of_environment();
        if instruments.is_empty() {
            // What was kept for it is given back.
            drop(kernel.load_probes(&[]));
            return Self::start(instruments, Probes::default(), rules, false);
        }
        let probes = kernel.load_probes(&programs(&instruments));
        if instruments.iter().any(|one| one.comes_late()) {
            kernel.watch_code();
        }
        let hazards = Hazards::look(&[Feature::ReturnProbesUnderSeccomp]);
        let returns = hazards.allows(Feature::ReturnProbesUnderSeccomp);
        let may = returns.is_ok();
        kernel.losses.extend(returns.err().filter(|_| probes.lacking().is_none()));
        // Loading took some megabytes, and looking at files will.
        usage::give_back();
        Self::start(instruments, probes, rules, may)
    }

    /// Starts the thread. Without instruments there is none, and nothing costs anything.
    fn start(instruments: Vec<Arc<dyn Instrument>>, probes: Probes, rules: Rules, returns: bool) -> Self {
        let perf_events = probes.need_perfmon();
        let (tasks, taken) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let (say_id, id) = mpsc::sync_channel(1);
        let account = Arc::new(Account::default());
        let waiting = Arc::new(AtomicU64::new(0));
        let thread = (!instruments.is_empty()).then(|| {
            let files = Files::new(instruments, probes, rules, returns, Arc::clone(&account), tell);
            let waiting = Arc::clone(&waiting);
            let work = move || {
                // Whoever started it waits for this.
                let _ = say_id.send(privilege::thread_id());
                run(files, &taken, &waiting);
            };
            std::thread::Builder::new().name("instruments".into()).spawn(work)
        });
        let thread = thread.and_then(Result::ok);
        let id = thread.as_ref().and_then(|_| id.recv().ok());
        Self { tasks: thread.is_some().then_some(tasks), waiting, news, thread, id, perf_events, account }
    }

    /// The thread that must be able to look at processes and to attach, and whether it does that by perf events.
    #[must_use]
    pub fn prober(&self) -> Option<(i32, bool)> {
        self.id.map(|id| (id, self.perf_events))
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn any(&self) -> bool {
        self.tasks.is_some()
    }

    fn tell(&self, task: Task) {
        let Some(tasks) = &self.tasks else { return };
        if self.waiting.load(Ordering::Relaxed) >= WAITING as u64 {
            Account::add(&self.account.dropped, 1);
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(tasks.send(task));
    }

    /// A program is going to be started: its first call should find the probes there.
    pub fn expect(&self, path: PathBuf) {
        self.tell(Task::Expected(path));
    }

    /// A process is traced from now on.
    pub fn started(&self, tgid: u32) {
        self.tell(Task::Started(tgid));
    }

    /// A traced process has a child, which is traced too.
    pub fn forked(&self, parent: u32, child: u32) {
        self.tell(Task::Forked { parent, child });
    }

    /// A traced process runs another program.
    pub fn became(&self, tgid: u32) {
        self.tell(Task::Became(tgid));
    }

    /// A traced process may have loaded code; `more` if it surely has.
    pub fn mapped(&self, tgid: u32, more: bool) {
        self.tell(Task::Mapped { tgid, more });
    }

    /// What is known of a process is not enough: the probes for later are needed.
    pub fn more(&self, tgid: u32, need: Need) {
        self.tell(Task::More(tgid, need));
    }

    /// Those probes were of no use to the process.
    pub fn less(&self, tgid: u32, need: Need) {
        self.tell(Task::Less(tgid, need));
    }

    /// A process is traced no longer.
    pub fn ended(&self, tgid: u32) {
        self.tell(Task::Ended(tgid));
    }

    /// Waits until what was told so far is done. Whether it is.
    pub fn settle(&self, within: Duration) -> bool {
        if !self.any() {
            return true;
        }
        let (done, wait) = mpsc::sync_channel(1);
        self.tell(Task::Settle(done));
        wait.recv_timeout(within).is_ok()
    }

    /// What there is to know.
    pub fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }

    /// Takes all probes away.
    pub fn stop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A fault in it was told when it happened; its probes went with it.
            drop(thread.join());
        }
    }

    /// The account, if there is anything to do.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.id?;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let account = &self.account;
        Some(Stage {
            name: "instrument: probes",
            input: of(&account.wanted),
            rows: vec![
                (Flow::Out, "attached", of(&account.attached)),
                (Flow::Drop, "refused by the kernel", of(&account.refused)),
            ],
            notes: vec![
                ("files with probes", of(&account.files)),
                ("sites in use", of(&account.sites)),
                ("files not looked at: table full", of(&account.full)),
                ("looks left out: too many wait", of(&account.dropped)),
            ],
        })
    }
}

impl Drop for Instruments {
    /// Also when something went wrong: the kernel takes links of a process that ends away one after the other.
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(mut files: Files, tasks: &Receiver<Task>, waiting: &AtomicU64) {
    let mut tidied = Instant::now();
    loop {
        let now = Instant::now();
        let until = files.next_look().map_or(TIDY, |at| at.saturating_duration_since(now).min(TIDY));
        match tasks.recv_timeout(until) {
            Ok(task) => {
                waiting.fetch_sub(1, Ordering::Relaxed);
                match task {
                    Task::Expected(path) => files.expected(&path),
                    Task::Started(tgid) => files.started(tgid),
                    Task::Forked { parent, child } => files.forked(parent, child),
                    Task::Became(tgid) => files.became(tgid),
                    Task::Mapped { tgid, more } => files.mapped(tgid, more),
                    Task::Ended(tgid) => files.ended(tgid),
                    Task::More(tgid, need) => files.more(tgid, need),
                    Task::Less(tgid, need) => files.less(tgid, need),
                    Task::Settle(done) => {
                        // Nobody may wait any more.
                        if let Err(TrySendError::Full(())) = done.try_send(()) {
                            continue;
                        }
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        files.look_again(now);
        if waiting.load(Ordering::Relaxed) == 0 {
            files.rest();
        }
        if now.duration_since(tidied) >= TIDY {
            tidied = now;
            files.tidy(now);
        }
    }
    files.close();
}
