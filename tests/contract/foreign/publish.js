// Publishes a feedback.evaluate: node publish.js URL EXCHANGE bare|binary|structured APP
const amqp = require("amqplib");

const [url, exchange, form, app] = process.argv.slice(2);
const KEY = "feedback.evaluate";
const data = { app, window: "7d", requested_by: "foreign" };
const attributes = {
  specversion: "1.0",
  id: `order-${app}`,
  type: KEY,
  source: "/another-team",
  time: new Date().toISOString(),
};
const MESSAGES = {
  bare: [data, {}],
  binary: [
    data,
    {
      contentType: "application/json",
      headers: Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value])),
    },
  ],
  structured: [{ ...attributes, data }, { contentType: "application/cloudevents+json" }],
};

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  channel.on("return", () => {
    console.error(`nobody takes ${KEY}`);
    process.exitCode = 1;
  });
  const [body, options] = MESSAGES[form];
  channel.publish(exchange, KEY, Buffer.from(JSON.stringify(body)), { mandatory: true, persistent: true, ...options });
  await channel.waitForConfirms();
  await connection.close();
}

main();
