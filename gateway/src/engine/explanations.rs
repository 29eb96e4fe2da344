//! Questions to the packet filter, and their answers from the tunnel thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::messages::{Command, ExplainId, ExplainRequest, Explanation};
use tokio::sync::{mpsc, oneshot};

/// The tunnel thread answers within one turn. A longer wait is a fault of the gateway.
const PATIENCE: Duration = Duration::from_secs(2);

/// The questions without an answer yet. The callers limit their number: each waits for its own.
#[derive(Clone, Default)]
pub struct Explanations(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    last: u64,
    open: BTreeMap<ExplainId, oneshot::Sender<Explanation>>,
}

/// Removes a question whose caller has gone.
struct Open<'a> {
    of: &'a Explanations,
    id: ExplainId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.of.lock().open.remove(&self.id);
    }
}

impl Explanations {
    /// Asks the filter.
    ///
    /// # Errors
    /// Fails when the tunnel thread does not answer.
    pub async fn ask(
        &self,
        tunnel: &mpsc::Sender<Command>,
        question: ExplainRequest,
    ) -> anyhow::Result<Explanation> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let id = ExplainId(waiting.last);
            waiting.open.insert(id, answer);
            id
        };
        let _open = Open { of: self, id };
        let asked = async {
            tunnel.send(Command::Explain(id, question)).await.ok().context("the tunnels have ended")?;
            answered.await.context("the tunnels have ended")
        };
        tokio::time::timeout(PATIENCE, asked).await.context("the tunnels do not answer")?
    }

    /// Passes an answer of the filter on.
    pub fn answer(&self, id: ExplainId, explanation: Explanation) {
        if let Some(waiting) = self.lock().open.remove(&id) {
            let _ = waiting.send(explanation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{ExplainSource, ExplainTarget, GrantProtocol};
    use fleetgate_engine::time::Wall;

    use super::*;

    fn question() -> ExplainRequest {
        let host = ExplainTarget::Host(Id::from_i64(7));
        let from = ExplainSource::User(Id::from_i64(70));
        ExplainRequest { from, to: host, protocol: GrantProtocol::Tcp, port: 22, at: Wall::from_millis(0) }
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer() {
        let (tunnel, mut commands) = mpsc::channel(8);
        let explanations = Explanations::default();
        let both = async {
            tokio::join!(explanations.ask(&tunnel, question()), explanations.ask(&tunnel, question()))
        };
        let answers = async {
            let mut ids = Vec::new();
            for _ in 0..2 {
                let Some(Command::Explain(id, asked)) = commands.recv().await else { panic!("a question") };
                assert_eq!(asked, question());
                ids.push(id);
            }
            explanations.answer(ids[1], Explanation::NoGrant);
            explanations.answer(ids[0], Explanation::UnknownTarget);
        };
        let ((first, second), ()) = tokio::join!(both, answers);
        assert_eq!((first.unwrap(), second.unwrap()), (Explanation::UnknownTarget, Explanation::NoGrant));
        assert!(explanations.lock().open.is_empty());
    }

    #[tokio::test]
    async fn a_question_whose_caller_has_gone_is_forgotten() {
        let (tunnel, _commands) = mpsc::channel(8);
        let explanations = Explanations::default();
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, explanations.ask(&tunnel, question())).await.is_err());
        assert!(explanations.lock().open.is_empty());
    }

    #[tokio::test]
    async fn without_a_tunnel_thread_there_is_no_answer() {
        let (tunnel, commands) = mpsc::channel(8);
        drop(commands);
        let error = Explanations::default().ask(&tunnel, question()).await.unwrap_err().to_string();
        assert_eq!(error, "the tunnels have ended");
    }
}
