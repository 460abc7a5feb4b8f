//! A service's name from the command line, where the program does not name itself.
//!
//! Interpreters are named after what they run (`python3 app.py` is `app`, `java -jar shop.jar` is `shop`), everything else after
//! its program file. A script whose name says nothing (`index.js`, `__main__.py`) is named after its directory.

use std::path::{Path, PathBuf};

use super::service::Language;

/// Python servers that are started with the application as an argument, and take its name.
const PYTHON_SERVERS: &[&str] =
    &["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "waitress"];

/// Perl servers that are started with the application as an argument, and take its name.
const PERL_SERVERS: &[&str] =
    &["starman", "starlet", "plackup", "twiggy", "feersum", "thrall", "morbo", "hypnotoad"];

/// What is known of a program at the moment it is named.
pub(super) struct Program<'a> {
    pub(super) language: Language,
    pub(super) exe_name: &'a str,
    pub(super) cmdline: &'a [Box<str>],
    pub(super) cwd: Option<&'a Path>,
}

impl Program<'_> {
    /// The name.
    pub(super) fn service_name(&self) -> String {
        let found = match self.language {
            Language::Python if self.exe_name.starts_with("uwsgi") => self.uwsgi(),
            Language::Python => self.python(),
            Language::Nodejs => self.script(
                &[
                    "-r",
                    "--require",
                    "--import",
                    "--loader",
                    "--experimental-loader",
                    "-C",
                    "--conditions",
                    "--title",
                ],
                &["-e", "--eval", "-p", "--print", "-pe"],
            ),
            Language::Ruby => self.script(&["-r", "-I", "-C", "-E"], &["-e"]),
            // Its arguments are settings.
            Language::Php if self.exe_name.starts_with("php-fpm") => None,
            Language::Php => self.script(&["-c", "-d", "-S", "-t", "-z"], &["-r"]),
            Language::Perl => self.perl(),
            Language::Java => self.java(),
            Language::Dotnet => self.dotnet(),
            _ => None,
        };
        found.filter(|name| !name.is_empty()).unwrap_or_else(|| self.exe_name.to_owned())
    }

    /// Whether the command line says nothing of the program because it is a worker of its parent: a title in the place of the
    /// arguments, or a process of Python's `multiprocessing`.
    pub(super) fn is_worker(&self) -> bool {
        let titled = matches!(self.cmdline, [title] if title.contains(' ') && !title.starts_with('/'));
        titled || self.arguments().any(|argument| argument == "--multiprocessing-fork")
    }

    fn arguments(&self) -> impl Iterator<Item = &str> {
        self.cmdline.iter().skip(1).map(AsRef::as_ref)
    }

    fn python(&self) -> Option<String> {
        if let [title] = self.cmdline
            && let Some((_, rest)) = title.split_once(": ").filter(|(name, _)| PYTHON_SERVERS.contains(name))
        {
            // "gunicorn: master [shop.wsgi:app]"
            let application = rest.split_once('[')?.1.strip_suffix(']')?;
            return Some(module(application).unwrap_or(application).to_owned());
        }
        let mut arguments = self.arguments();
        while let Some(argument) = arguments.next() {
            match argument {
                "-W" | "-X" | "-Q" | "--check-hash-based-pycs" => _ = arguments.next(),
                "-m" => {
                    let name = arguments.next()?;
                    return Some(application(name, arguments).unwrap_or(name).to_owned());
                }
                "-" | "-c" => return None,
                // Flags may be joined, the last of them taking a value: -um module.
                _ if argument.starts_with('-') && !argument.starts_with("--") && argument.ends_with('m') => {
                    return arguments.next().map(str::to_owned);
                }
                _ if argument.starts_with('-') => {}
                script => {
                    let stem = self.stem(script, &["__main__", "main", "manage", "wsgi", "asgi"]);
                    let server = file_stem(script).filter(|name| PYTHON_SERVERS.contains(name));
                    return server
                        .and_then(|server| application(server, arguments))
                        .map(str::to_owned)
                        .or(stem);
                }
            }
        }
        None
    }

    /// uWSGI has Python inside: the application is the value of an option. What its files of settings say is not read.
    fn uwsgi(&self) -> Option<String> {
        let mut arguments = self.arguments();
        while let Some(argument) = arguments.next() {
            let (option, value) = argument.split_once('=').unwrap_or((argument, ""));
            let mut value = || Some(value).filter(|value| !value.is_empty()).or_else(|| arguments.next());
            match option {
                "-w" | "--module" | "--wsgi" => {
                    return value().map(|name| name.split(':').next().unwrap_or(name).to_owned());
                }
                "--wsgi-file" | "--file" => {
                    return self.stem(value()?, &["wsgi", "main"]);
                }
                _ => {}
            }
        }
        None
    }

    /// Script of an interpreter: the first argument that is neither an option nor the value of one of `valued`. With one of
    /// `code` there is no script.
    fn script(&self, valued: &[&str], code: &[&str]) -> Option<String> {
        let mut arguments = self.arguments();
        while let Some(argument) = arguments.next() {
            if code.contains(&argument) {
                return None;
            }
            if valued.contains(&argument) {
                arguments.next();
            } else if !argument.starts_with('-') {
                return self.stem(argument, &["index", "."]);
            }
        }
        None
    }

    fn perl(&self) -> Option<String> {
        if let [title] = self.cmdline {
            // "starman master --listen :5000"
            return title.split(' ').next().filter(|name| PERL_SERVERS.contains(name)).map(str::to_owned);
        }
        let mut arguments = self.arguments();
        while let Some(argument) = arguments.next() {
            match argument {
                "-I" => _ = arguments.next(),
                "-" => return None,
                // What is joined to these is a value.
                _ if ["-I", "-M", "-m", "-d", "-D", "-F", "-i", "--"]
                    .iter()
                    .any(|flag| argument.starts_with(flag)) => {}
                // Flags may be joined, the last of them taking a value: -we code.
                _ if argument.starts_with('-') && argument.ends_with(['e', 'E']) => return None,
                _ if argument.starts_with('-') => {}
                script => {
                    let server = file_stem(script).is_some_and(|name| PERL_SERVERS.contains(&name));
                    let is_application =
                        |argument: &&str| argument.ends_with(".psgi") || argument.ends_with(".pl");
                    let script =
                        if server { arguments.find(is_application).unwrap_or(script) } else { script };
                    return self.stem(script, &["main", "index"]);
                }
            }
        }
        None
    }

    fn java(&self) -> Option<String> {
        const VALUED: &[&str] = &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
            "--add-exports",
            "--add-opens",
            "--add-reads",
            "--patch-module",
            "--limit-modules",
            "--enable-native-access",
        ];
        let mut arguments = self.arguments();
        while let Some(argument) = arguments.next() {
            match argument {
                "-jar" => return file_stem(arguments.next()?).map(str::to_owned),
                "-m" | "--module" => {
                    let name = arguments.next()?;
                    return Some(name.rsplit('/').next().unwrap_or(name).to_owned());
                }
                _ if VALUED.contains(&argument) => _ = arguments.next(),
                _ if argument.starts_with('-') || argument.starts_with('@') => {}
                source if source.ends_with(".java") => return file_stem(source).map(str::to_owned),
                class => return Some(class.rsplit('/').next().unwrap_or(class).to_owned()),
            }
        }
        None
    }

    fn dotnet(&self) -> Option<String> {
        self.arguments().find(|a| a.ends_with(".dll")).and_then(file_stem).map(str::to_owned)
    }

    /// Stem of a script's file name; the name of its directory instead where the stem says nothing.
    fn stem(&self, script: &str, vague: &[&str]) -> Option<String> {
        let stem = file_stem(script);
        if let Some(stem) = stem.filter(|stem| !vague.contains(stem)) {
            return Some(stem.to_owned());
        }
        let base = self.cwd.map_or_else(PathBuf::new, Path::to_owned);
        let path = base.join(script);
        // `node .` and `node dir/..` name a directory themselves.
        let directory = if stem.is_none() || script.ends_with('.') { path.as_path() } else { path.parent()? };
        let name = directory.components().rev().find_map(|part| match part {
            std::path::Component::Normal(name) => name.to_str(),
            _ => None,
        });
        name.or(stem.filter(|stem| *stem != ".")).map(str::to_owned)
    }
}

/// The application that a Python server was told to serve (`module:attribute`).
fn application<'a>(server: &str, arguments: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if !PYTHON_SERVERS.contains(&server) {
        return None;
    }
    arguments.filter(|argument| !argument.starts_with('-')).find_map(module)
}

/// `shop.wsgi:app` -> `shop.wsgi`. Addresses (`0.0.0.0:80`, `unix:/run/x`) are not applications.
fn module(argument: &str) -> Option<&str> {
    let (module, attribute) = argument.split_once(':')?;
    let identifier = |text: &str| {
        text.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '(' | ')'))
    };
    (identifier(module) && identifier(attribute)).then_some(module)
}

fn file_stem(path: &str) -> Option<&str> {
    Path::new(path).file_stem()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(language: Language, exe: &str, line: &str) -> String {
        let cmdline: Vec<Box<str>> = line.split(' ').map(Into::into).collect();
        Program { language, exe_name: exe, cmdline: &cmdline, cwd: Some(Path::new("/srv/shop")) }
            .service_name()
    }

    #[test]
    fn python() {
        for (line, expected) in [
            ("python3 app.py", "app"),
            ("python3 -u -X dev /srv/orders/app.py --port 80", "app"),
            ("python3 -m pkg.mod --flag", "pkg.mod"),
            ("python3 -um http.server", "http.server"),
            ("python3 manage.py runserver", "shop"),
            ("python3 /srv/cart/__main__.py", "cart"),
            ("python3 -c print()", "python3.11"),
            ("python3", "python3.11"),
            ("/usr/bin/python3 /usr/local/bin/gunicorn -b 0.0.0.0:80 -w 4 shop.wsgi:app", "shop.wsgi"),
            ("python3 -m uvicorn --host h api.main:create()", "api.main"),
            ("python3 /usr/bin/uvicorn --version", "uvicorn"),
        ] {
            assert_eq!(name(Language::Python, "python3.11", line), expected, "{line}");
        }
        for (line, expected) in [
            ("uwsgi --http 127.0.0.1:8000 --wsgi-file /srv/orders/app.py --processes 2", "app"),
            ("uwsgi --http :8000 --wsgi-file=/srv/orders/wsgi.py", "orders"),
            ("uwsgi --socket /run/x.sock -w shop.wsgi:application", "shop.wsgi"),
            ("uwsgi --module=shop.wsgi", "shop.wsgi"),
            ("uwsgi --ini /etc/uwsgi/shop.ini", "uwsgi"),
        ] {
            assert_eq!(name(Language::Python, "uwsgi", line), expected, "{line}");
        }
        let title: [Box<str>; 1] = ["gunicorn: worker [shop.wsgi:app]".into()];
        let program = Program { language: Language::Python, exe_name: "python3", cmdline: &title, cwd: None };
        assert_eq!(program.service_name(), "shop.wsgi");
        assert!(program.is_worker());
        let spawned =
            ["python3", "-c", "from multiprocessing.spawn import spawn_main", "--multiprocessing-fork"];
        let spawned = spawned.map(Box::from);
        assert!(Program { cmdline: &spawned, ..program }.is_worker());
        let plain = ["python3", "app.py"].map(Box::from);
        assert!(!Program { cmdline: &plain, ..program }.is_worker());
    }

    #[test]
    fn scripts() {
        for (line, expected) in [
            ("node server.js", "server"),
            ("node --require ./tracing.js --max-old-space-size=100 dist/main.mjs x", "main"),
            ("node /srv/billing/index.js", "billing"),
            ("node index.js", "shop"),
            ("node .", "shop"),
            ("node /", "node"),
            ("node -e 1", "node"),
            ("node", "node"),
        ] {
            assert_eq!(name(Language::Nodejs, "node", line), expected, "{line}");
        }
        assert_eq!(name(Language::Ruby, "ruby3.1", "ruby -I lib bin/api.rb"), "api");
        for (line, expected) in [
            ("perl app.pl", "app"),
            ("perl -w -I lib -Mstrict /srv/shop/bin/api.pl --port 80", "api"),
            ("perl /srv/shop/main.pl", "shop"),
            ("/usr/bin/perl /usr/bin/starman --port 5000 shop.psgi", "shop"),
            ("/usr/bin/perl /usr/bin/plackup", "plackup"),
            ("perl /usr/local/bin/morbo ./blog.pl", "blog"),
            ("perl -we 1", "perl"),
            ("perl -", "perl"),
        ] {
            assert_eq!(name(Language::Perl, "perl", line), expected, "{line}");
        }
        assert_eq!(name(Language::Php, "php8.2", "php -S 0.0.0.0:80 -t public router.php"), "router");
        assert_eq!(name(Language::Php, "php-fpm8.2", "php-fpm:"), "php-fpm8.2");
        assert_eq!(name(Language::Php, "php-fpm8.2", "php-fpm8.2 -y /srv/shop.conf -R"), "php-fpm8.2");
    }

    #[test]
    fn compiled() {
        for (line, expected) in [
            ("java -Xmx1g -jar /opt/shop.jar --port 80", "shop"),
            ("java -cp a:b -Dx=y com.shop.Main arg", "com.shop.Main"),
            ("java -p mods -m shop/com.shop.Main", "com.shop.Main"),
            ("java Hello.java", "Hello"),
            ("java -version", "java"),
        ] {
            assert_eq!(name(Language::Java, "java", line), expected, "{line}");
        }
        assert_eq!(name(Language::Dotnet, "dotnet", "dotnet exec /app/Shop.Api.dll"), "Shop.Api");
        assert_eq!(name(Language::Dotnet, "Shop.Api", "/app/Shop.Api"), "Shop.Api");
        assert_eq!(name(Language::Go, "shopd", "/usr/bin/shopd serve"), "shopd");
        assert_eq!(name(Language::Cpp, "nginx", "nginx: worker process"), "nginx");
    }
}
