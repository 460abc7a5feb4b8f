// What web.py's server does, in Node.
//
// web.js PORT [CERT KEY]
'use strict';

const fs = require('fs');

const [port, cert, key] = process.argv.slice(2);
const EVENTS = 3;

function frame(flags, text) {
  const head = Buffer.from([flags, 0, 0, 0, text.length]);
  return Buffer.concat([head, Buffer.from(text)]);
}

function post(request, response, body) {
  const content = request.headers['content-type'];
  const code = Number(request.url.split('/').pop().slice(1));
  if (!content.includes('grpc-web')) {
    response.writeHead(code ? 404 : 200, { 'Content-Type': content, 'Content-Length': 2 });
    return response.end('ok');
  }
  if (request.url.startsWith('/load.Head/')) {
    response.writeHead(200, { 'Content-Type': content, 'grpc-status': code, 'Content-Length': 0 });
    return response.end();
  }
  const text = content.includes('text');
  const encode = (bytes) => (text ? bytes.toString('base64') : bytes);
  response.writeHead(200, { 'Content-Type': content });
  response.write(encode(text ? Buffer.from(body.toString(), 'base64') : body));
  response.end(encode(frame(0x80, `grpc-status: ${code}\r\ngrpc-message: as asked\r\n`)));
}

function events(request, response) {
  const fields = { 'Content-Type': 'text/event-stream' };
  if (request.url.startsWith('/close/')) {
    response.useChunkedEncodingByDefault = false;
    fields.Connection = 'close';
  }
  response.writeHead(200, fields);
  let sent = 0;
  const next = () => {
    if (sent === EVENTS) return response.end();
    response.write(`data: ${sent++}\n\n`);
    setImmediate(next);
  };
  next();
}

function serve(request, response) {
  if (request.method === 'GET') return events(request, response);
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => post(request, response, Buffer.concat(parts)));
}

const server = cert
  ? require('https').createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, serve)
  : require('http').createServer(serve);
server.on('upgrade', (request, socket, head) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
  const answer = (bytes) => socket.end(bytes);
  if (head.length) answer(head);
  else socket.once('data', answer);
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready'));
