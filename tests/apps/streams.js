// HTTP/2 with long writes: a server and a client in one process, COUNT requests at once on one connection, each third with a body of
// 100,000 bytes, and with 300,000 bytes in the answer. Ends with an error if an answer is not what it should be.
// node streams.js COUNT [CERT KEY]
'use strict';
const fs = require('fs');
const http2 = require('http2');

const [count, cert, key] = [Number(process.argv[2]), process.argv[3], process.argv[4]];
const long = (number) => number % 3 === 1;

function handle(stream, headers) {
  let length = 0;
  stream.on('data', (data) => (length += data.length));
  stream.on('end', () => {
    const number = Number(headers[':path'].split('/')[2]);
    const right = length === (long(number) ? 100_000 : 0);
    stream.respond({ ':status': right ? 200 : 500 });
    stream.end(Buffer.alloc(long(number) ? 300_000 : 10, 'a'));
  });
}

const server = cert
  ? http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  : http2.createServer();
server.on('stream', handle);
server.listen(0, '127.0.0.1', () => {
  const url = `${cert ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
  const client = http2.connect(url, { rejectUnauthorized: false });
  let left = count;
  for (let number = 0; number < count; number++) {
    const stream = client.request({ ':path': `/long/${number}`, ':method': long(number) ? 'POST' : 'GET' });
    let length = 0;
    stream.on('response', (headers) => {
      if (headers[':status'] !== 200) process.exit(2);
    });
    stream.on('data', (data) => (length += data.length));
    stream.on('end', () => {
      if (length !== (long(number) ? 300_000 : 10)) process.exit(3);
      if (--left === 0) {
        client.close();
        server.close();
      }
    });
    stream.end(long(number) ? Buffer.alloc(100_000, 'b') : undefined);
  }
});
