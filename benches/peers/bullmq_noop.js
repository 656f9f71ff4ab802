// BullMQ beside taskd: `bullmq_noop.js worker` drains with two at a time once it gets SIGUSR2 (it says READY before),
// `bullmq_noop.js N` enqueues.
const { Queue, Worker } = require(process.cwd() + '/target/bench/peers/node_modules/bullmq');
const connection = { path: process.env.REDIS_SOCKET, maxRetriesPerRequest: null };
async function main() {
  if (process.argv[2] === 'worker') {
    const worker = new Worker('noop', async () => null, { connection, concurrency: 2, autorun: false });
    await worker.waitUntilReady();
    process.on('SIGUSR2', () => worker.run());
    console.log('READY');
    return;
  }
  const queue = new Queue('noop', { connection });
  for (let left = Number(process.argv[2]); left > 0; left -= 500) {
    await queue.addBulk(Array.from({ length: Math.min(left, 500) }, () => ({ name: 'noop', data: {} })));
  }
  await queue.close();
}
main().catch((e) => { console.error(e); process.exit(1); });
