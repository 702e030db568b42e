//! The order of what is shown.

use anyhow::Result;
use testbed::Testbed;

use crate::follow::Follower;
use crate::sample;
use crate::screen::{Screen, seconds};
use crate::shell::Shell;
use crate::{files, modes, restart, setup};

/// Everything after the servers are up.
pub(crate) async fn tell(bed: &Testbed, screen: &Screen) -> Result<()> {
    files::lay_out(bed.directory())?;
    let shell = Shell::new(bed)?;
    let commands = setup::vault(&shell, screen).await?;
    let controller = setup::controller(bed, &shell, screen, &commands).await?;
    let mut pods = Follower::new(bed.client(), sample::NAMESPACE);
    let first = sample::start(bed, &shell, screen, &mut pods).await?;
    modes::show(bed, screen, &mut pods).await?;
    let next = restart::show(bed, &shell, screen, &mut pods, &controller).await?;
    screen.blank();
    screen.milestone("All of it worked.");
    let rows = [
        ["first pod".to_owned(), format!("token {} after its init container ran", first.served_in())],
        ["pod during the restart".to_owned(), format!("token {} after its init container ran", next.served_in())],
        ["everything".to_owned(), seconds(screen.elapsed())],
    ];
    screen.output(&crate::screen::table(&rows));
    Ok(())
}
