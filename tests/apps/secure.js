// Node server and client that speak TLS, HTTP/2, or both.
//
// node secure.js server PORT https|h2|h2c [CERT KEY] [DOWNSTREAM CA]
//   /leaf/N answers N, /status/S answers with status S, /work/N calls /leaf/N downstream in the same protocol
// node secure.js client URL https|h2|h2c REQUESTS CONNECTIONS STREAMS CA
//   waits for a line on standard input, asks for /leaf/1 to /leaf/REQUESTS, and says `done SENT GOOD`
'use strict';
const fs = require('fs');
const http2 = require('http2');
const https = require('https');

const [what, where, protocol, ...rest] = process.argv.slice(2);
const read = (path) => (path ? fs.readFileSync(path) : undefined);

// Calls paths of a server; `get` gives status and body.
function caller(url, ca, connections) {
  if (protocol === 'https') {
    const agent = new https.Agent({ keepAlive: true, maxSockets: connections, ca: read(ca) });
    return (path) =>
      new Promise((done, fail) => {
        https
          .get(url + path, { agent }, (answer) => {
            const parts = [];
            answer.on('data', (part) => parts.push(part));
            answer.on('end', () => done([answer.statusCode, Buffer.concat(parts).toString()]));
          })
          .on('error', fail);
      });
  }
  const sessions = [];
  let turn = 0;
  return (path) =>
    new Promise((done, fail) => {
      const slot = turn++ % connections;
      sessions[slot] ??= http2.connect(url, { ca: read(ca) });
      const stream = sessions[slot].request({ ':path': path });
      const parts = [];
      let status;
      stream.on('response', (headers) => (status = headers[':status']));
      stream.on('data', (part) => parts.push(part));
      stream.on('end', () => done([status, Buffer.concat(parts).toString()]));
      stream.on('error', fail);
      stream.end();
    });
}

function serve() {
  const [cert, key, downstream, ca] = rest;
  // As many connections as calls at once, or sessions with many streams each.
  const get = downstream && caller(downstream, ca, protocol === 'https' ? 512 : 16);
  const handle = (request, response) => {
    const [, first, number] = request.url.split('/');
    const answer = (status, data) => {
      response.writeHead(status, { 'content-type': 'text/plain', 'content-length': Buffer.byteLength(data) });
      response.end(request.method === 'HEAD' ? undefined : data);
    };
    if (first === 'work' && get) {
      get(`/leaf/${number}`).then(([, data]) => answer(200, data), (error) => answer(502, String(error)));
    } else if (first === 'leaf') {
      answer(200, number);
    } else if (first === 'status') {
      answer(Number(number), number);
    } else {
      answer(200, 'ok\n');
    }
  };
  const options = { cert: read(cert), key: read(key) };
  const settings = { maxConcurrentStreams: 1000 };
  const server = {
    https: () => https.createServer(options, handle),
    h2: () => http2.createSecureServer({ ...options, settings, allowHTTP1: true }, handle),
    h2c: () => http2.createServer({ settings }, handle),
  }[protocol]();
  server.keepAliveTimeout = 60000;
  server.listen(Number(where), '127.0.0.1', 512, () => console.log('ready'));
}

function load() {
  const [requests, connections, streams] = rest.slice(0, 3).map(Number);
  const get = caller(where, rest[3], connections);
  let next = 1;
  let good = 0;
  const one = async () => {
    while (next <= requests) {
      const number = String(next++);
      try {
        const [status, body] = await get(`/leaf/${number}`);
        if (status === 200 && body === number) good++;
      } catch (error) {
        console.error(String(error));
      }
    }
  };
  console.log('ready');
  process.stdin.once('data', async () => {
    await Promise.all(Array.from({ length: connections * streams }, one));
    console.log(`done ${requests} ${good}`);
    process.exit(0);
  });
}

(what === 'server' ? serve : load)();
