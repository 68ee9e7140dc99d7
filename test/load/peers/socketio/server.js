// Socket.IO with its Redis adapter: a client joins a room with "join" and hears "m". Publications come at POST /publish?channel=<room>
// and reach the rooms of all processes through Redis. It listens on PORT (host:port) and uses REDIS (host:port).
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { Redis } from "ioredis";
import { Server } from "socket.io";

const [host, port] = process.env.PORT.split(":");
const [redisHost, redisPort] = process.env.REDIS.split(":");
const pub = new Redis(Number(redisPort), redisHost);
const sub = pub.duplicate();

const http = createServer((req, res) => {
	const url = new URL(req.url, "http://x");
	if (req.method !== "POST" || url.pathname !== "/publish") {
		res.writeHead(404).end();
		return;
	}
	const parts = [];
	req.on("data", (part) => parts.push(part));
	req.on("end", () => {
		io.to(url.searchParams.get("channel")).emit("m", JSON.parse(Buffer.concat(parts).toString()));
		res.end();
	});
});
const io = new Server(http, { adapter: createAdapter(pub, sub), transports: ["websocket"], serveClient: false, perMessageDeflate: false });
io.on("connection", (socket) => {
	// Not needed after the handshake, and large: the documentation's advice on memory.
	socket.conn.request = null;
	socket.on("join", async (room) => {
		await socket.join(room);
		socket.emit("joined");
	});
});
http.listen(Number(port), host, () => console.log(`ready ${host}:${http.address().port}`));
