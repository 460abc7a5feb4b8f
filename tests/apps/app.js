// Node HTTP server that calls another one.
//
// node app.js PORT [DOWNSTREAM] [callback|before|all|both]
//   callback  http.request on an Agent with 32 keep-alive sockets, answer in its callback
//   before    a short timer, then fetch
//   all       three calls at once, Promise.all: /leaf/N/1, /leaf/N/2, /leaf/N/3
//   both      a timer before and after the call: sockets show no evidence of the parent
'use strict';
const http = require('http');

const [port, downstream, mode = 'callback'] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
const pause = () => new Promise((done) => setTimeout(done, Math.random() * 10));

function get(path) {
  return new Promise((done, fail) => {
    http.get(downstream + path, { agent }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => done(Buffer.concat(parts)));
    }).on('error', fail);
  });
}

const modes = {
  callback: (n) => get(`/leaf/${n}`),
  before: async (n) => {
    await pause();
    const answer = await fetch(`${downstream}/leaf/${n}`);
    return Buffer.from(await answer.arrayBuffer());
  },
  all: async (n) => Buffer.concat(await Promise.all([1, 2, 3].map((k) => get(`/leaf/${n}/${k}`)))),
  both: async (n) => {
    await pause();
    const data = await get(`/leaf/${n}`);
    await pause();
    return data;
  },
};

const server = http.createServer((request, response) => {
  const [, what, number] = request.url.split('/');
  const answer = (status, data) => {
    response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(data) });
    response.end(data);
  };
  if (what === 'work' && downstream) {
    modes[mode](number).then((data) => answer(200, data), (error) => answer(502, String(error)));
  } else if (what === 'leaf') {
    answer(200, number);
  } else {
    answer(200, 'ok\n');
  }
});
server.keepAliveTimeout = 60000;
server.listen(Number(port), '127.0.0.1', 512, () => console.log('ready'));
