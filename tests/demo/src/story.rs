//! The order of what is shown.

use anyhow::Result;
use testbed::Testbed;

use crate::failover::{self, Stage};
use crate::follow::Follower;
use crate::sample;
use crate::screen::{Screen, millis, seconds};
use crate::shell::Shell;
use crate::{files, modes, setup};

/// Everything after the servers are up.
pub(crate) async fn tell(bed: &Testbed, screen: &Screen) -> Result<()> {
    files::lay_out(bed.directory())?;
    let shell = Shell::new(bed)?;
    let commands = setup::vault(&shell, screen).await?;
    setup::controllers(bed, &shell, screen, &commands).await?;
    let mut pods = Follower::new(bed.client(), sample::NAMESPACE);
    let first = sample::start(bed, &shell, screen, &mut pods).await?;
    modes::show(bed, screen, &mut pods).await?;
    let stage = Stage { bed, shell: &shell, screen };
    let killed = failover::kill(&stage, &mut pods).await?;
    let parted = failover::cut(&stage, &mut pods).await?;
    screen.blank();
    screen.milestone("All of it worked.");
    let rows = [
        ["first pod".to_owned(), format!("token {} after its init container ran", first.served_in())],
        ["leader killed".to_owned(), format!("{} to the next accepted push, ten of ten served", millis(killed))],
        ["leader cut off".to_owned(), format!("{} to the next accepted push, ten of ten served", millis(parted))],
        ["everything".to_owned(), seconds(screen.elapsed())],
    ];
    screen.output(&crate::screen::table(&rows));
    Ok(())
}
