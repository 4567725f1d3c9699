// A Socket.IO server with the PostgreSQL adapter: who connects joins the room of the user it says it is.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/postgres-adapter";
import pg from "pg";
import { Server } from "socket.io";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 });
const http = createServer();
const io = new Server(http, { transports: ["websocket"] });
io.adapter(createAdapter(pool));
io.on("connection", (socket) => socket.join(socket.handshake.auth.user));
http.listen(Number(process.env.PORT), "127.0.0.1");
