//! The user that PostgreSQL runs as: our own, or an unprivileged one where we are root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;

/// The users to run as where we are root, the first that exists.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// An unprivileged user, for a server whose owner is root.
#[derive(Clone, Debug)]
pub(super) struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` where we are not root and PostgreSQL may run as ourselves; else the owner of the
    /// `cluster` directory, or of one to be made.
    pub(super) fn choose(cluster: &Path) -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        if let Ok(owner) = fs::metadata(cluster)
            && owner.uid() != 0
        {
            return Ok(Some(Self {
                name: format!("{} (by number)", owner.uid()),
                uid: owner.uid(),
                gid: owner.gid(),
            }));
        }
        let passwd = Path::new("/etc/passwd");
        let users = fs::read_to_string(passwd).map_err(Error::io("read", passwd))?;
        let account = CANDIDATES.iter().find_map(|name| find_user(&users, name));
        account.map(Some).ok_or(Error::NoAccount)
    }

    /// Fails where this user cannot enter `dir`.
    pub(super) fn check_reach(&self, dir: &Path) -> Result<(), Error> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "cd \"$1\"", "sh"]).arg(dir);
        shell.uid(self.uid).gid(self.gid).current_dir("/");
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match shell.status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Error::NotReachable {
                user: self.name.clone(),
                dir: dir.to_owned(),
            }),
        }
    }
}

fn find_user(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account {
        name: name.to_owned(),
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

/// A command that runs as `account`, in a place it can be in and a known environment.
pub(super) fn command(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        // PGDATA, PGOPTIONS and their like are meant for some other server.
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Makes a directory that only the server's user can enter.
pub(super) fn create_private_dir(dir: &Path, account: Option<&Account>) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(Error::io("set the mode of", dir))?;
    match account {
        Some(user) => chown(dir, Some(user.uid), Some(user.gid))
            .map_err(Error::io("change the owner of", dir)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody2:x:1:1::/:\nnobody:x:65534:65533::/:\n";
        let nobody = find_user(passwd, "nobody").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65534, 65533));
        assert!(find_user(passwd, "postgres").is_none());
    }
}
